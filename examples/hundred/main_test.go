package main

import (
	"context"
	"encoding/json"
	"flag"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/internal/testbed"
	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue/config"
)

func unset(string) (string, bool) { return "", false }

func newProgram() (*program, *testbed.Output) {
	out := &testbed.Output{}
	return &program{
		backends: config.Backends{memory.System: memory.New(&memory.Options{Create: true})}, lookup: unset, out: out, errs: out,
	}, out
}

func TestAHundredAndTwentyQueuesLoseNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, out := newProgram()
		require.NoError(t, p.run(t.Context(), []string{"-for", "1m", "-rate", "200"}), "%s", out)
		var r result
		require.NoError(t, json.Unmarshal([]byte(out.LastLine()), &r))
		assert.Equal(t, 120, r.Queues)
		assert.InDelta(t, 60*200, r.Published, 3000)
		assert.Equal(t, r.Published, r.Handled+r.DeadLettered)
		assert.Positive(t, r.DeadLettered)
		assert.Positive(t, r.Failures)
		assert.Zero(t, r.Lost)
		assert.Contains(t, out.String(), "120 queues run, 0 fail; ")
	})
}

func TestDeadLettersAreLeftIfAskedTo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, out := newProgram()
		mem := memory.New(&memory.Options{Create: true})
		p.backends[memory.System] = mem
		require.NoError(t, p.run(t.Context(), []string{"-for", "20s", "-rate", "50", "-only", "partner-*", "-keep"}), "%s", out)
		var r result
		require.NoError(t, json.Unmarshal([]byte(out.LastLine()), &r))
		assert.Positive(t, r.DeadLettered)
		assert.Len(t, mem.Messages("partner-dlq"), r.DeadLettered)
	})
}

func TestAPartOfTheQueuesRunsAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, out := newProgram()
		require.NoError(t, p.run(t.Context(), []string{"-for", "10s", "-rate", "50", "-only", "fraud-*,audit-login"}), "%s", out)
		var r result
		require.NoError(t, json.Unmarshal([]byte(out.LastLine()), &r))
		assert.Equal(t, 5, r.Queues)
		assert.Equal(t, r.Published, r.Handled)
		assert.Positive(t, r.Published)
	})
}

func TestAnInterruptDrainsAndLeavesTheRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, out := newProgram()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		require.NoError(t, p.run(ctx, []string{"-for", "0"}), "%s", out)
		var r result
		require.NoError(t, json.Unmarshal([]byte(out.LastLine()), &r))
		assert.Equal(t, r.Published, r.Handled+r.DeadLettered+r.Open)
		assert.Zero(t, r.Lost, "what's open isn't lost")
	})
}

func TestHealthIsToldOverHTTP(t *testing.T) {
	t.Parallel()
	p, out := newProgram()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.run(ctx, []string{"-for", "0", "-rate", "10", "-http", "127.0.0.1:0"}) }()
	address := regexp.MustCompile(`http://\S+`)
	require.Eventually(t, func() bool { return address.MatchString(out.String()) }, 30*time.Second, 10*time.Millisecond)
	for _, path := range []string{"/live", "/ready"} {
		require.Eventually(t, func() bool {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, address.FindString(out.String())+path, nil)
			if err != nil {
				return false
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return false
			}
			return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
		}, 30*time.Second, 10*time.Millisecond, path)
	}
	cancel()
	require.NoError(t, <-ended)
}

func TestWhatCannotBeMeantIsRefused(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-rate 0":         "-rate must be",
		"-for -1s":        "can't be negative",
		"-role chief":     "no role",
		"-role work":      "can't be shared",
		"-only blasts-*":  "blasts-*",
		"-log loud":       "-log",
		"everything":      "everything",
		"-no-such-option": flag.ErrHelp.Error(),
	} {
		p, _ := newProgram()
		err := p.run(t.Context(), strings.Fields(args))
		require.ErrorContains(t, err, want, args)
	}
}
