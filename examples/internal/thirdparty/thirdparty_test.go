package thirdparty_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
)

const host = "http://party.example"

// call posts once and returns the status, or 0 when no answer came.
func call(t *testing.T, c *http.Client, url string) (int, http.Header) {
	t.Helper()
	resp, err := c.Post(url, "text/plain", strings.NewReader("hello"))
	if err != nil {
		return 0, nil
	}
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode, resp.Header
}

// inProcess returns a client of a party, and how often the party's handler ran.
func inProcess(f thirdparty.Faults) (*http.Client, *thirdparty.Party, *int) {
	handled := new(int)
	p := thirdparty.New(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*handled++
		thirdparty.Annotate(w, "seen")
		w.WriteHeader(http.StatusCreated)
	}), f)
	return &http.Client{Transport: thirdparty.Network{"party.example": p}}, p, handled
}

func TestLostAnswerComesAfterTheWorkWasDone(t *testing.T) {
	t.Parallel()
	client, party, handled := inProcess(thirdparty.Faults{Seed: 7, LostOneIn: 10})
	lost := 0
	for range 100 {
		if code, _ := call(t, client, host); code == 0 {
			lost++
		}
	}
	assert.Equal(t, 10, lost, "exactly one in ten")
	assert.Equal(t, 100, *handled)
	inLog := 0
	for _, r := range party.Log() {
		assert.True(t, r.Handled())
		assert.Equal(t, "seen", r.Note)
		assert.Equal(t, "hello", string(r.Body))
		if r.Fault == thirdparty.Lost {
			inLog++
			assert.False(t, r.Answered)
		}
	}
	assert.Equal(t, lost, inLog)
}

func TestRulesRefuseTheirShareUnhandled(t *testing.T) {
	t.Parallel()
	client, party, handled := inProcess(thirdparty.Faults{Rules: []thirdparty.Rule{
		{Fault: "throttled", OneIn: 5, Answer: thirdparty.TooManyRequests(1500 * time.Millisecond)},
		{Fault: "error", OneIn: 8, Answer: thirdparty.Status(500, `{}`)},
	}})
	got := map[int]int{}
	for range 100 {
		code, header := call(t, client, host)
		got[code]++
		if code == http.StatusTooManyRequests {
			assert.Equal(t, "2", header.Get("Retry-After"), "rounded up, as the header has whole seconds")
		}
	}
	assert.Equal(t, map[int]int{429: 20, 500: 10, 201: 70}, got)
	assert.Equal(t, 70, *handled)
	assert.Len(t, party.Log(), 100)
}

func TestOutageBeginsByCountAndEndsByTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var events []thirdparty.OutageEvent
		client, _, handled := inProcess(thirdparty.Faults{
			Outages:  []thirdparty.Window{{AfterRequests: 3, For: 10 * time.Second}},
			OnOutage: func(e thirdparty.OutageEvent) { events = append(events, e) },
		})
		var codes []int
		for range 15 {
			code, _ := call(t, client, host)
			codes = append(codes, code)
			time.Sleep(time.Second)
		}
		assert.Equal(t, []int{201, 201, 201, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 201, 201}, codes)
		assert.Equal(t, 5, *handled)
		require.Len(t, events, 2)
		assert.True(t, events[0].Began)
		assert.False(t, events[1].Began)
		assert.Equal(t, 10, events[1].Refused)
	})
}

func TestSlowAnswerOfAHandledRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, party, handled := inProcess(thirdparty.Faults{SlowOneIn: 1, SlowFor: 5 * time.Second})
		client.Timeout = 2 * time.Second
		begin := time.Now()
		code, _ := call(t, client, host)
		assert.Equal(t, 0, code)
		assert.Equal(t, 2*time.Second, time.Since(begin))
		synctest.Wait()
		assert.Equal(t, 1, *handled)
		require.Len(t, party.Log(), 1)
		assert.False(t, party.Log()[0].Answered, "the caller had gone")
		assert.True(t, party.Log()[0].Handled())
	})
}

func TestServerCutsTheConnectionOfALostAnswer(t *testing.T) {
	t.Parallel()
	party := thirdparty.New(http.NotFoundHandler(), thirdparty.Faults{})
	lossy := thirdparty.New(thirdparty.Status(200, `{}`), thirdparty.Faults{LostOneIn: 1})
	mux := http.NewServeMux()
	mux.Handle("/missing", party)
	mux.Handle("/lossy", lossy)
	server, err := thirdparty.Serve("", mux)
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()

	code, _ := call(t, client, server.URL+"/missing")
	assert.Equal(t, http.StatusNotFound, code)
	code, _ = call(t, client, server.URL+"/lossy")
	assert.Equal(t, 0, code)
	require.Len(t, lossy.Log(), 1)
	assert.True(t, lossy.Log()[0].Handled())
	require.NoError(t, server.Close(context.Background()))
}

func TestServerClosesBesideUnusedConnections(t *testing.T) {
	t.Parallel()
	server, err := thirdparty.Serve("", thirdparty.Status(200, `{}`))
	require.NoError(t, err)
	conn, err := net.Dial("tcp", strings.TrimPrefix(server.URL, "http://"))
	require.NoError(t, err)
	defer conn.Close() //nolint:errcheck // it's only there
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	code, _ := call(t, client, server.URL) // the server has accepted the one before
	require.Equal(t, 200, code)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second) // a shutdown would wait 5
	defer cancel()
	require.NoError(t, server.Close(ctx))
	require.NoError(t, ctx.Err())
}
