package pubsub_test

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// proxy is the network between a client and a server: it refuses, cuts, delays and
// swallows connections as a test wants.
type proxy struct {
	t       *testing.T
	address string // where clients connect
	target  string

	mu       sync.Mutex
	listener net.Listener // nil: connections are refused
	conns    map[net.Conn]struct{}
	thawed   chan struct{} // not closed: nothing passes
	delay    time.Duration
	cuts     int // connections that were broken
	wg       sync.WaitGroup
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	p := &proxy{t: t, target: target, conns: map[net.Conn]struct{}{}, thawed: make(chan struct{})}
	close(p.thawed)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p.address = l.Addr().String()
	p.serve(l)
	t.Cleanup(func() {
		p.thaw()
		p.refuse()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) serve(l net.Listener) {
	p.mu.Lock()
	p.listener = l
	p.mu.Unlock()
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // it was closed
			}
			p.wg.Go(func() { p.carry(c) })
		}
	})
}

// carry passes on what goes over one connection.
func (p *proxy) carry(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer out.Close()
	p.mu.Lock()
	p.conns[in], p.conns[out] = struct{}{}, struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, in)
		delete(p.conns, out)
	}()
	var wg sync.WaitGroup
	for from, to := range map[net.Conn]net.Conn{in: out, out: in} {
		wg.Go(func() {
			defer in.Close()
			defer out.Close()
			p.pass(from, to)
		})
	}
	wg.Wait()
}

func (p *proxy) pass(from, to net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			p.mu.Lock()
			thawed, delay := p.thawed, p.delay
			p.mu.Unlock()
			<-thawed
			time.Sleep(delay) // of the network, which nothing tells
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// cut breaks the connections that there are.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
		p.cuts++
	}
}

// refuse cuts all connections, and nobody listens any more.
func (p *proxy) refuse() {
	p.mu.Lock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	p.mu.Unlock()
	p.cut()
}

// allow listens again.
func (p *proxy) allow() {
	l, err := net.Listen("tcp", p.address)
	if assert.NoError(p.t, err) {
		p.serve(l)
	}
}

// freeze swallows what's sent, until thaw: connections are there, but silent.
func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.thawed = make(chan struct{})
}

// thaw lets pass what was swallowed, and what comes.
func (p *proxy) thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.thawed:
	default:
		close(p.thawed)
	}
}

// slow makes everything take so much longer, each way.
func (p *proxy) slow(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

func TestTheProxyRefusesCutsAndSwallows(t *testing.T) {
	t.Parallel()
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	p := newProxy(t, echo.Addr().String())
	dial := func() net.Conn {
		c, err := net.Dial("tcp", p.address)
		require.NoError(t, err)
		return c
	}
	says := func(c net.Conn, patience time.Duration) error {
		require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
		_, err := c.Read(make([]byte, 1))
		return err
	}
	c := dial()
	require.NoError(t, says(c, time.Minute))
	p.freeze()
	assert.Error(t, says(c, 50*time.Millisecond), "nothing passes")
	p.thaw()
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	_, err = c.Read(make([]byte, 1))
	assert.NoError(t, err, "what was swallowed comes late")
	p.cut()
	assert.Error(t, says(c, time.Minute))
	c = dial()
	assert.NoError(t, says(c, time.Minute))
	p.refuse()
	assert.Error(t, says(c, time.Minute))
	_, err = net.Dial("tcp", p.address)
	assert.Error(t, err)
	p.allow()
	c = dial()
	assert.NoError(t, says(c, time.Minute))
	require.NoError(t, c.Close())
	require.NoError(t, echo.Close())
	t.Cleanup(wg.Wait) // after the proxy's
}
