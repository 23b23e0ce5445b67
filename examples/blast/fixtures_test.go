package main

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/blast/parties"
	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
	"github.com/anyqueue/anyqueue/queue"
)

var testBlast = Blast{
	ID: uuid.MustParse("6ba7b810-9dad-11d1-80b4-00c04fd430c8"), Account: parties.Account, List: parties.List,
	Template: "newsletter", Subject: "first look",
}

const testList = `id,email,name,opted_out
ada,ada@example.com,Ada,
bo,bo@example.com,Bo,true
ada,ada@example.com,Ada,
cy,cy+rejected-email@example.com,Cy,
di,di+low-quality@example.com,Di,
ed,ed+timeout@example.com,Ed,
fay,fay..fay@example.com,Fay,
`

// world is a set of calm third parties, called without a network, one of which
// a test may replace.
type world struct {
	fakes    *parties.Parties
	services *services

	mu      sync.Mutex
	replace map[string]http.HandlerFunc // by path prefix
	calls   map[string]int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	in, err := parties.ReadCSV(strings.NewReader(testList))
	require.NoError(t, err)
	w := &world{
		fakes: parties.New(in, parties.Options{
			Calm: true, MailID: func(c string) string { return CustomerMail{testBlast, c}.ID() },
		}),
		replace: map[string]http.HandlerFunc{}, calls: map[string]int{},
	}
	w.services = newServices("http://fake", thirdparty.Network{"fake": w})
	return w
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	var h http.Handler = w.fakes
	for path, f := range w.replace {
		if strings.HasPrefix(r.URL.Path, path) {
			h = f
		}
	}
	w.calls["/"+strings.Split(r.URL.Path, "/")[1]]++
	w.mu.Unlock()
	h.ServeHTTP(rw, r)
}

// fails makes the services below path answer with h; nil: as usual again.
func (w *world) fails(path string, h http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h == nil {
		delete(w.replace, path)
		return
	}
	w.replace[path] = h
}

// called tells how often a party was called.
func (w *world) called(path string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[path]
}

// losesAnswer lets the fakes do what they're asked, then cuts the connection.
func (w *world) losesAnswer(_ http.ResponseWriter, r *http.Request) {
	w.fakes.ServeHTTP(discard{http.Header{}}, r)
	panic(http.ErrAbortHandler)
}

type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

// outbox is a publisher that keeps what it's given.
type outbox struct {
	mu   sync.Mutex
	msgs []*queue.Message
	fail error
}

func (o *outbox) Publish(ctx context.Context, msgs ...*queue.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fail != nil {
		return o.fail
	}
	o.msgs = append(o.msgs, msgs...)
	return nil
}

// contents decodes what was published.
func contents[T any](t *testing.T, o *outbox) []T {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make([]T, len(o.msgs))
	for i, m := range o.msgs {
		require.NoError(t, json.Unmarshal(m.Body, &out[i]))
	}
	return out
}
