package testbed

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// build makes a binary of the program in the test's folder.
func build(ctx context.Context, file string) error {
	out, err := exec.CommandContext(ctx, "go", "build", "-o", file, ".").CombinedOutput()
	if err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// A Process is a part of an example in a process of its own.
type Process struct {
	Out *Output // stdout and stderr

	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how it has ended
}

// Start starts a process of the example, which finds the broker at url: its own, or
// that of something in between. It ends with the test at the latest.
func (b *Broker) Start(t *testing.T, url string, args ...string) *Process {
	t.Helper()
	return StartOn(t, []End{{b, url}}, args...)
}

// StartOn is Start for a process that uses several brokers.
func StartOn(t *testing.T, ends []End, args ...string) *Process {
	t.Helper()
	p := &Process{Out: &Output{}, cmd: exec.CommandContext(t.Context(), ends[0].binary, args...), done: make(chan struct{})}
	p.cmd.Env = environment(ends)
	p.cmd.Stdout, p.cmd.Stderr = p.Out, p.Out
	require.NoError(t, p.cmd.Start())
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // one that has ended already is no error
		<-p.done
	})
	return p
}

// Kill is SIGKILL; it returns when the process is gone.
func (p *Process) Kill(t *testing.T) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Kill(), "it was to run until now: %s", p.Out)
	<-p.done
}

// Wait waits until the process ends by itself, and returns how: nil is exit code 0.
func (p *Process) Wait(t *testing.T, ctx context.Context) error { //nolint:revive // t is first in tests
	t.Helper()
	select {
	case <-p.done:
	case <-ctx.Done():
		t.Fatalf("it's still running: %v\n%s", ctx.Err(), p.Out)
	}
	return p.err
}

// Await waits for something in the output and returns its submatches.
func (p *Process) Await(t *testing.T, ctx context.Context, what string) []string { //nolint:revive // t is first in tests
	t.Helper()
	re := regexp.MustCompile(what)
	for {
		found, changed := p.Out.find(re)
		if found != nil {
			return found
		}
		select {
		case <-changed:
		case <-p.done:
			if found, _ := p.Out.find(re); found != nil {
				return found
			}
			t.Fatalf("it has ended (%v) without %q\n%s", p.err, what, p.Out)
		case <-ctx.Done():
			t.Fatalf("no %q: %v\n%s", what, ctx.Err(), p.Out)
		}
	}
}

// AwaitAll waits for events that can only happen while the process runs, in any
// order, and does at once what's to be done at each.
func (p *Process) AwaitAll(t *testing.T, ctx context.Context, events map[<-chan struct{}]func()) { //nolint:revive // t is first in tests
	t.Helper()
	happened := make(chan func())
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	for event, do := range events {
		go func() {
			select {
			case <-event:
			case <-stop.Done():
				return
			}
			select {
			case happened <- do:
			case <-stop.Done():
			}
		}()
	}
	for range events {
		select {
		case do := <-happened:
			do()
		case <-p.done:
			t.Fatalf("it was over before all was done: %v\n%s", p.err, p.Out)
		case <-ctx.Done():
			t.Fatalf("not all has happened: %v\n%s", ctx.Err(), p.Out)
		}
	}
}

// Running reports whether the process hasn't ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Drain is SIGTERM: the processes end by themselves, and without a complaint.
func Drain(t *testing.T, ps ...*Process) {
	t.Helper()
	for _, p := range ps {
		require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM), "it was to run until now: %s", p.Out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, p := range ps {
		assert.NoError(t, p.Wait(t, ctx), "%s", p.Out)
	}
}

// Output is what a program has written. It may be used concurrently; the zero value is
// empty.
type Output struct {
	mu      sync.Mutex
	buf     []byte
	changed chan struct{} // closed at the next change; nil: nobody waits for it
}

// Write implements io.Writer.
func (o *Output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf = append(o.buf, b...)
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
	return len(b), nil
}

// String returns all of it.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.buf)
}

func (o *Output) find(re *regexp.Regexp) (found []string, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed == nil {
		o.changed = make(chan struct{})
	}
	return re.FindStringSubmatch(string(o.buf)), o.changed
}

// LastLine returns the last line.
func (o *Output) LastLine() string {
	lines := strings.Split(strings.TrimSpace(o.String()), "\n")
	return lines[len(lines)-1]
}
