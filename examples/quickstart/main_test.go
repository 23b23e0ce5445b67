package main

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

// downFor is a CRM that is down for some time.
type downFor struct {
	until time.Time
	calls int
	have  []Lead
}

func (c *downFor) Upsert(_ context.Context, lead Lead) (int, error) {
	c.calls++
	if time.Now().Before(c.until) {
		return http.StatusServiceUnavailable, nil
	}
	c.have = append(c.have, lead)
	return http.StatusCreated, nil
}

// The file names its backend by the environment; the test has its own.
func TestMain(m *testing.M) {
	for _, name := range []string{"QUEUE_BACKEND", "QUEUE_ENSURE"} {
		if err := os.Unsetenv(name); err != nil {
			panic(err)
		}
	}
	m.Run()
}

// In a synctest bubble an hour of retries takes a few milliseconds.
func TestALeadSurvivesAnHourWithoutCRM(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := memory.New(nil)
		crm := &downFor{until: time.Now().Add(time.Hour)}
		bus, err := newBus(config.Backends{"memory": broker}, crm, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- bus.Run(ctx) }()

		leads := bus.Publisher("crm-leads")
		require.NoError(t, queue.PublishJSON(ctx, leads, Lead{ID: "1", Email: "ada@example.com"}))
		require.NoError(t, queue.PublishJSON(ctx, leads, Lead{ID: "2", Email: "nobody"}))
		require.NoError(t, broker.WaitIdle(ctx))

		assert.Equal(t, []Lead{{ID: "1", Email: "ada@example.com"}}, crm.have)
		assert.Greater(t, crm.calls, 12, "it's tried again at least every 5 minutes")
		dead := broker.Messages("crm-leads-dlq")
		require.Len(t, dead, 1)
		assert.Equal(t, "lead 2 has no address", dead[0].DeadLetter.Error)
		stop()
		require.NoError(t, <-ended)
	})
}
