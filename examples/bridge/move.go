package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/anyqueue/anyqueue/examples/internal/backends"
	"github.com/anyqueue/anyqueue/queue"
)

// betweenLines is the least time between two lines of progress.
const betweenLines = time.Second

// move is one run of the program.
type move struct {
	*tool
	name, to     string
	from, target queue.Queue
	dead         queue.Publisher // nil: none
	log          *slog.Logger

	begun  time.Time
	result result
	said   time.Time // when progress was last told
	before int       // moved until then
}

// run moves until ctx ends or, if that's wanted, the queue is empty.
func (m *move) run(ctx context.Context) error {
	m.begun = time.Now()
	m.said = m.begun
	err := m.rounds(ctx)
	// Also when ctx has ended: what was done is to be seen.
	ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if n, unknown := backends.Waiting(ask, m.from); unknown == nil {
		m.result.Remaining = &n
	}
	m.result.Seconds = float64(time.Since(m.begun).Milliseconds()) / 1000
	if err == nil && m.untilEmpty && ctx.Err() == nil && m.result.Left > 0 {
		err = fmt.Errorf("%d messages stay in %s, as %s can't carry them", m.result.Left, m.name, m.to)
	}
	return errors.Join(err, m.print(m.result))
}

// rounds bridges again for as long as the queue isn't empty although nothing comes:
// others have messages in hand, or the broker delays them.
func (m *move) rounds(ctx context.Context) error {
	opts := &queue.BridgeOptions{Rate: m.rate, Parallel: m.parallel, DeadLetter: m.dead, Logger: m.log}
	if m.untilEmpty {
		opts.Quiet = m.quiet
		if opts.Quiet == 0 {
			opts.Quiet = m.from.Capabilities().Lease + 5*time.Second
		}
	}
	for {
		begin := m.result
		opts.Progress = func(r queue.BridgeResult) {
			m.result = begin.plus(r)
			m.tell()
		}
		r, err := queue.Bridge(ctx, m.from, m.target, opts)
		m.result = begin.plus(r)
		if err != nil || !m.untilEmpty || ctx.Err() != nil {
			return err
		}
		switch n, err := backends.Waiting(ctx, m.from); {
		case errors.Is(err, queue.ErrUnsupported): // a look has consequences there
			return nil
		case err != nil:
			m.log.Warn("it isn't known whether the queue is empty", "queue", m.name, "err", err)
		case n <= int64(m.result.Left):
			return nil
		default:
			m.printf("%d messages more are leased by others, or delayed: waiting for them\n", n-int64(m.result.Left))
		}
	}
}

// plus adds a round. What stayed in an earlier one is hidden for a while, and may not
// have been met again.
func (r result) plus(b queue.BridgeResult) result {
	r.Moved += b.Copied
	r.DeadLettered += b.DeadLettered
	r.Repeated += b.Repeated
	r.Left = max(r.Left, b.Left)
	return r
}

// tell says how far it is.
func (m *move) tell() {
	since := time.Since(m.said)
	if since < betweenLines {
		return
	}
	r := m.result
	m.printf("%d moved (%.0f/s), %d dead-lettered, %d left\n", r.Moved, float64(r.Moved-m.before)/since.Seconds(), r.DeadLettered, r.Left)
	m.said, m.before = time.Now(), r.Moved
}

func (m *move) printf(format string, args ...any) { _, _ = fmt.Fprintf(m.errs, format, args...) }
