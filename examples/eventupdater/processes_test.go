//go:build unix

package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/internal/testbed"
)

// The parts as processes on one broker. The form is killed with SIGKILL while it
// publishes, and the worker when it has written leads to the CRM and hasn't said so.
func TestProcessesThatAreKilledLoseNoLead(t *testing.T) {
	t.Parallel()
	testbed.OnEach(t, queuesYAML, func(t *testing.T, connect func(*testing.T) *testbed.Broker) {
		t.Helper()
		killed(t, connect(t))
	})
}

func killed(t *testing.T, broker *testbed.Broker) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	publishes := testbed.NewGate(t, broker, broker.Publishes, 60)
	web := broker.Start(t, publishes.URL, "-role", "web", "-addr", "127.0.0.1:0")
	webURL := web.Await(t, ctx, `listening on (http://\S+)`)[1]
	fake := broker.Start(t, broker.URL, "-role", "fake", "-crm-addr", "127.0.0.1:0", "-web-url", webURL,
		"-submissions", "300", "-over", "5s", "-outage", "1s", "-outage-after", "3s")
	crmURL := fake.Await(t, ctx, `the crm listens on (http://[^\s;]+)`)[1]
	acknowledges := testbed.NewGate(t, broker, broker.Acknowledges, 10)
	worker := broker.Start(t, acknowledges.URL, "-role", "worker", "-crm-url", crmURL)

	fake.AwaitAll(t, ctx, map[<-chan struct{}]func(){
		acknowledges.Reached: func() {
			worker.Kill(t)
			worker = broker.Start(t, broker.URL, "-role", "worker", "-crm-url", crmURL)
		},
		publishes.Reached: func() {
			web.Kill(t)
			web = broker.Start(t, broker.URL, "-role", "web", "-addr", strings.TrimPrefix(webURL, "http://"))
		},
	})

	_ = fake.Wait(t, ctx) // what it makes of it is in its result
	t.Log(fake.Out)
	var r result
	require.NoError(t, json.Unmarshal([]byte(fake.Out.LastLine()), &r))
	assert.True(t, r.ok(), "%+v", r)
	assert.Greater(t, r.Accepted, r.Submissions/2, "the form was away for a moment only")
	assert.GreaterOrEqual(t, r.Records+r.DeadLettered, r.Accepted)
	assert.Positive(t, r.DeadLettered)

	rejected := broker.Start(t, broker.URL, "-role", "rejected")
	require.NoError(t, rejected.Wait(t, ctx), "%s", rejected.Out)
	listed := map[string]bool{} // a lead that came again was rejected again
	for line := range strings.Lines(rejected.Out.String()) {
		if id, what, _ := strings.Cut(line, "\t"); strings.Contains(what, "REQUIRED_FIELD_MISSING") {
			listed[id] = true
		}
	}
	assert.Len(t, listed, r.DeadLettered, "%s", rejected.Out)
	testbed.Drain(t, web, worker)
}
