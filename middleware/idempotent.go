package middleware

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// Mark is what an IdempotencyStore knows about a key.
type Mark int

// The answers of IdempotencyStore.Begin.
const (
	MarkStarted    Mark = iota // the caller has it now
	MarkInProgress             // somebody else has it
	MarkDone                   // it was handled
)

// An IdempotencyStore remembers which deliveries were handled. MemoryStore is
// one; on a database or Redis each method is a single atomic statement. All
// methods may be called concurrently, from many processes.
type IdempotencyStore interface {
	// Begin marks key as in progress, by the holder of token, for ttl, and
	// returns MarkStarted, if it's free or its mark has run out; also if the same
	// token holds it, whose time then begins anew. Otherwise it changes nothing and
	// returns what it found. It's called again and again while a handler runs.
	Begin(ctx context.Context, key, token string, ttl time.Duration) (Mark, error)

	// Done marks key as handled for ttl, whoever holds it: a success stays one.
	Done(ctx context.Context, key string, ttl time.Duration) error

	// Release makes key free if it's in progress by token, and does nothing
	// otherwise: one who comes late can't take away another's mark.
	Release(ctx context.Context, key, token string) error
}

// IdempotentOptions are the settings of Idempotent. The zero value is usable.
type IdempotentOptions struct {
	// Key identifies the work. Default, also for an empty key: the name of the
	// queue, a slash and Delivery.ID; the name, as a message that's forwarded to
	// another queue keeps its ID and isn't a repeat there.
	Key func(*queue.Delivery) string

	// Remember is how long a success is remembered. It should be longer than a
	// message may take to come again: the time until DeadLetter gives up, plus
	// that until a redrive. Default 7 days.
	Remember time.Duration

	// Hold is how long the mark of a handler lasts that has died with its
	// process. It's renewed while the handler runs, so it may be shorter than
	// the handler takes. Default 1 min.
	Hold time.Duration

	// AskAgain is when a delivery comes back whose key is in progress. Default
	// 5 s.
	AskAgain time.Duration

	// StoreTimeout is how long one call of the store may take. Default 5 s.
	StoreTimeout time.Duration

	// Logger gets a line when the store fails after a handler has run, and at
	// Debug when a repeat is skipped. Default: the consumer's.
	Logger *slog.Logger
}

// ErrMarkLost is the cause of a handler's context when somebody else has taken
// over its key: its process was out of touch for longer than Hold.
var ErrMarkLost = errors.New("middleware: idempotency mark lost")

// Idempotent skips what was already handled. Before the handler runs, its key is
// marked as in progress; after a success, as done. A repeat that finds the key
// done is acknowledged without running; one that finds it in progress comes back
// after AskAgain, which isn't a failure.
//
// Only a success is remembered. After a failure, a panic, Reject, Drop, Snooze or an
// interruption the key is free again, so that a redelivery or a redrive runs the
// handler; a repeat of a dropped message is handled, and dropped, again.
//
// When the store fails before the start, the delivery fails: no handler runs
// unguarded. When it fails after a success, the delivery is acknowledged all the
// same, after three tries and a line in the log: a repeat, which may never come,
// would be handled twice, whereas a failure would be handled twice for certain.
//
// It makes a repeat rare, not impossible: a process can die between the handler's
// last effect and the mark. An effect that must not happen twice carries the
// key to where it happens.
func Idempotent(store IdempotencyStore, o IdempotentOptions) queue.Middleware {
	i := &idempotent{store: store}
	i.opts, i.err = o.validate(store)
	return i
}

func (o IdempotentOptions) validate(store IdempotencyStore) (IdempotentOptions, error) {
	switch {
	case store == nil:
		return o, invalid("Idempotent", "no store given")
	case o.Remember < 0:
		return o, invalid("Idempotent.Remember", "negative")
	case o.Hold < 0:
		return o, invalid("Idempotent.Hold", "negative")
	case o.AskAgain < 0:
		return o, invalid("Idempotent.AskAgain", "negative")
	case o.StoreTimeout < 0:
		return o, invalid("Idempotent.StoreTimeout", "negative")
	}
	orDefault(&o.Remember, 7*24*time.Hour)
	orDefault(&o.Hold, time.Minute)
	orDefault(&o.AskAgain, 5*time.Second)
	orDefault(&o.StoreTimeout, 5*time.Second)
	return o, nil
}

func orDefault(d *time.Duration, def time.Duration) {
	if *d == 0 {
		*d = def
	}
}

type idempotent struct {
	store IdempotencyStore
	opts  IdempotentOptions
	err   error
}

// Bind implements queue.Binder.
func (i *idempotent) Bind(info queue.ConsumerInfo) (queue.Middleware, error) {
	if i.err != nil {
		return nil, i.err
	}
	b := *i
	if b.opts.Logger == nil {
		b.opts.Logger = info.Logger
	}
	return &b, nil
}

func (i *idempotent) logger() *slog.Logger {
	if i.opts.Logger == nil {
		return slog.Default()
	}
	return i.opts.Logger
}

// key is computed before the handler runs, which may change d.
func (i *idempotent) key(d *queue.Delivery) (string, error) {
	if i.opts.Key != nil {
		if k := i.opts.Key(d); k != "" {
			return k, nil
		}
	}
	if d.ID == "" {
		return "", invalid("Delivery.ID", "empty, so a repeat can't be told")
	}
	return d.Source.Name + "/" + d.ID, nil
}

// Wrap implements queue.Middleware.
func (i *idempotent) Wrap(next queue.Handler) queue.Handler {
	if i.err != nil {
		return refuse(i.err)
	}
	return func(ctx context.Context, d *queue.Delivery) error {
		key, err := i.key(d)
		if err != nil {
			return err
		}
		id, token := d.ID, rand.Text()
		bctx, cancel := context.WithTimeout(ctx, i.opts.StoreTimeout)
		mark, err := i.store.Begin(bctx, key, token, i.opts.Hold)
		cancel()
		switch {
		case err != nil:
			return fmt.Errorf("middleware: idempotency store: begin %s: %w", key, err)
		case mark == MarkDone:
			i.logger().Debug("repeat", "id", id, "key", key)
			return nil
		case mark != MarkStarted:
			return queue.Snooze(i.opts.AskAgain)
		}
		return i.run(ctx, next, d, &holder{i: i, key: key, token: token, id: id})
	}
}

// run calls the handler while its mark is kept.
func (i *idempotent) run(ctx context.Context, next queue.Handler, d *queue.Delivery, h *holder) (err error) {
	hctx := h.keep(ctx)
	returned := false
	defer func() {
		lost := h.stop()
		switch {
		case returned && err == nil:
			h.done(ctx)
		case !lost:
			h.release(ctx)
		case queue.OutcomeOf(err).Kind == queue.Failed:
			err = queue.Snooze(i.opts.AskAgain) // the other one decides
		}
	}()
	err = protect(hctx, next, d)
	returned = true
	return err
}

// holder keeps the mark of one running handler.
type holder struct {
	i              *idempotent
	key, token, id string

	cancel context.CancelFunc      // ends a renewal that's under way
	tell   context.CancelCauseFunc // ends the handler's context

	mu      sync.Mutex // held while the mark is renewed: stop waits for that
	timer   *time.Timer
	stopped bool
	lost    bool
}

func (h *holder) keep(ctx context.Context) context.Context {
	hctx, tell := context.WithCancelCause(ctx)
	rctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	h.tell, h.cancel = tell, cancel
	h.mu.Lock() // the timer may fire at once
	h.timer = time.AfterFunc(h.i.opts.Hold/3, func() { h.renew(rctx) })
	h.mu.Unlock()
	return hctx
}

func (h *holder) renew(ctx context.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return
	}
	sctx, cancel := context.WithTimeout(ctx, h.i.opts.StoreTimeout)
	defer cancel()
	mark, err := h.i.store.Begin(sctx, h.key, h.token, h.i.opts.Hold)
	switch {
	case ctx.Err() != nil: // stop is waiting
	case err != nil:
		// A store that fails lets nobody else begin either.
		h.log("renew", err)
		h.timer.Reset(h.i.opts.Hold / 6)
	case mark == MarkStarted:
		h.timer.Reset(h.i.opts.Hold / 3)
	default:
		h.lost = true
		h.tell(ErrMarkLost)
	}
}

// stop ends the renewal and waits for one that's under way.
func (h *holder) stop() (lost bool) {
	h.cancel()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	h.timer.Stop()
	h.tell(nil)
	return h.lost
}

// done says that the work is done, and tries hard.
func (h *holder) done(ctx context.Context) {
	const tries = 3
	wait := queue.Backoff{Min: 50 * time.Millisecond, Max: time.Second}
	for n := 1; ; n++ {
		sctx, cancel := detached(ctx, h.i.opts.StoreTimeout)
		err := h.i.store.Done(sctx, h.key, h.i.opts.Remember)
		cancel()
		if err == nil {
			return
		}
		h.log("done", err)
		if n == tries || !pause(context.WithoutCancel(ctx), wait.Delay(n)) {
			return
		}
	}
}

// release makes the key free. When that fails the mark runs out by itself.
func (h *holder) release(ctx context.Context) {
	sctx, cancel := detached(ctx, h.i.opts.StoreTimeout)
	defer cancel()
	if err := h.i.store.Release(sctx, h.key, h.token); err != nil {
		h.log("release", err)
	}
}

func (h *holder) log(op string, err error) {
	h.i.logger().Warn("idempotency_store", "op", op, "id", h.id, "key", h.key, "err", err)
}
