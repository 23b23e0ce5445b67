//go:build unix

package main

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/blast/parties"
	"github.com/anyqueue/anyqueue/examples/internal/testbed"
	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
)

// door is a process's own way to the third parties. What it asks of the database
// is done also when it dies meanwhile, and close waits for that: nothing of what a
// dead process has asked for happens later.
type door struct {
	url    string
	server *thirdparty.Server
	to     *http.Transport
	once   sync.Once
}

func newDoor(t *testing.T, partiesURL string) *door {
	t.Helper()
	to, err := url.Parse(partiesURL)
	require.NoError(t, err)
	d := &door{to: transport()}
	proxy := testbed.NewProxy(to, d.to)
	d.server, err = thirdparty.Serve("", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, parties.DatabasePath+"/") {
			r = r.WithContext(context.WithoutCancel(r.Context()))
		}
		proxy.ServeHTTP(w, r)
	}))
	require.NoError(t, err)
	d.url = d.server.URL
	t.Cleanup(func() { d.close(t) })
	return d
}

func (d *door) close(t *testing.T) {
	t.Helper()
	d.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second) //nolint:usetesting // also called in a cleanup
		defer cancel()
		assert.NoError(t, d.server.Close(ctx))
		d.to.CloseIdleConnections()
	})
}
