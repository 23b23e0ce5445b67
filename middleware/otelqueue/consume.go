package otelqueue

import (
	"context"
	"encoding/hex"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/anyqueue/anyqueue/queue"
)

// Consumer returns middleware for ConsumerOptions.Middleware, or for
// config.Options.Middleware, which gives it to all queues of a Bus. It should be the
// outermost, so that it measures what the others do:
//
//   - a span of kind consumer for each handler, "process <queue>", which continues the
//     trace that the message carries;
//   - a span of kind client for each receive that has brought something, with links to
//     the traces of its messages, and for each call that settles;
//   - the metrics of the conventions, and those of the package's documentation.
//
// In a queue.Chain, without a consumer, there are only the spans and the duration of
// the handlers.
func (t *Telemetry) Consumer() queue.Middleware { return &consumer{t: t} }

type consumer struct{ t *Telemetry }

// Bind implements queue.Binder.
func (c *consumer) Bind(info queue.ConsumerInfo) (queue.Middleware, error) {
	base := destinationOf(&info.Capabilities)
	if info.Name != info.Capabilities.Source.Name {
		base = append(base, attrConsumer.String(info.Name))
	}
	b := &bound{t: c.t, sets: newOutcomeSets(base)}
	b.process, b.receive, b.settle = newOperation(base, opProcess), newOperation(base, opReceive), newOperation(base, opSettle)
	c.t.running.add(info.Stats, attribute.NewSet(base...))
	return b, nil
}

// Wrap implements queue.Middleware.
func (c *consumer) Wrap(next queue.Handler) queue.Handler {
	return func(ctx context.Context, d *queue.Delivery) error {
		caps := queue.Capabilities{Source: d.Source}
		op := newOperation(destinationOf(&caps), opProcess)
		return c.t.handle(ctx, d, &op, next)
	}
}

// bound is the middleware of one consumer.
type bound struct {
	t                        *Telemetry
	process, receive, settle operation
	sets                     outcomeSets
}

// Wrap implements queue.Middleware.
func (b *bound) Wrap(next queue.Handler) queue.Handler {
	return func(ctx context.Context, d *queue.Delivery) error { return b.t.handle(ctx, d, &b.process, next) }
}

// handle runs a handler in its span.
func (t *Telemetry) handle(ctx context.Context, d *queue.Delivery, op *operation, next queue.Handler) (err error) {
	began := time.Now()
	ctx = t.opts.Propagator.Extract(ctx, carrier(d.Attributes))
	ctx, span := op.start(ctx, t.tracer, d.ID)
	t.describe(span, op, d)
	returned := false
	defer func() {
		if !returned { // a panic, or a Goexit, which go on
			err = &queue.PanicError{}
		}
		t.handled(ctx, span, op, began, err)
	}()
	err = next(ctx, d)
	returned = true
	return err
}

func (t *Telemetry) handled(ctx context.Context, span trace.Span, op *operation, began time.Time, err error) {
	took := time.Since(began).Seconds()
	if err == nil {
		span.End()
		t.metrics.process.Record(ctx, took, op.record...)
		return
	}
	kind := queue.OutcomeOf(err).Kind
	span.SetAttributes(attrOutcome.String(kind.String()))
	if kind == queue.Snoozed {
		span.End()
		t.metrics.process.Record(ctx, took, op.record...)
		return
	}
	t.end(span, err)
	t.metrics.process.Record(ctx, took, metric.WithAttributeSet(op.with(attrErrorType.String(errorType(err)))))
}

// describe adds what few deliveries have.
func (t *Telemetry) describe(span trace.Span, op *operation, d *queue.Delivery) {
	if d.Failures > 0 {
		span.SetAttributes(attrFailures.Int(d.Failures))
	}
	if op.system == systemGCP && d.OrderingKey != "" {
		span.SetAttributes(attrGCPOrderingKey.String(d.OrderingKey))
	}
	if op.system == systemGCP && d.Attempt > 0 {
		span.SetAttributes(attrGCPAttempt.Int(d.Attempt))
	}
	if t.opts.BodySize {
		span.SetAttributes(attrBodySize.Int(len(d.Body)))
	}
}

// Hooks adds what the engine tells.
func (b *bound) Hooks() *queue.Hooks {
	return &queue.Hooks{
		Received: b.received, Settled: b.settled, SettleCalled: b.settleCalled,
		LeaseLost: func(*queue.Delivery) {
			b.t.metrics.leasesLost.Add(context.Background(), 1, b.sets.base.add...)
		},
		SettleFailed: func(_ *queue.Delivery, kind queue.SettleKind, _ error, again bool) {
			if !again { // else it's counted when it's over
				b.t.metrics.settleFailed.Add(context.Background(), 1, b.sets.kinds[kind].add...)
			}
		},
	}
}

// received makes a span of a receive that has brought something, or has failed. An
// empty one has mostly waited, and one that was cut off by a shutdown too: they say
// nothing.
func (b *bound) received(r queue.Received) {
	n := len(r.Deliveries)
	if n == 0 && (r.Err == nil || errors.Is(r.Err, context.Canceled)) {
		return
	}
	ctx := context.Background()
	links := make([]trace.Link, 0, min(n, maxLinks))
	for _, d := range r.Deliveries[:min(n, maxLinks)] {
		if sc := b.t.spanContext(ctx, d.Attributes); sc.IsValid() {
			links = append(links, trace.Link{SpanContext: sc})
		}
	}
	b.t.call(&b.receive, r.Began, r.Took, n, r.Err, trace.WithLinks(links...))
	if n > 0 {
		b.t.metrics.consumed.Add(ctx, int64(n), b.receive.add...)
	}
}

// spanContext is what a message carries.
func (t *Telemetry) spanContext(ctx context.Context, attrs map[string]string) trace.SpanContext {
	if t.w3c && attrs["tracestate"] == "" {
		return parseTraceparent(attrs["traceparent"])
	}
	return trace.SpanContextFromContext(t.opts.Propagator.Extract(ctx, carrier(attrs)))
}

// parseTraceparent reads version 00 of https://www.w3.org/TR/trace-context/, which is
// all that's written today; a later one is left to the propagator, for the handler's
// span. It saves the two allocations of a context for each message.
func parseTraceparent(s string) trace.SpanContext {
	const length = 55 // 00-<32>-<16>-<2>
	if len(s) != length || s[:3] != "00-" || s[35] != '-' || s[52] != '-' {
		return trace.SpanContext{}
	}
	var c trace.SpanContextConfig
	var flags [1]byte
	for _, part := range []struct {
		to   []byte
		from string
	}{{c.TraceID[:], s[3:35]}, {c.SpanID[:], s[36:52]}, {flags[:], s[53:]}} {
		if _, err := hex.Decode(part.to, []byte(part.from)); err != nil {
			return trace.SpanContext{}
		}
	}
	c.TraceFlags, c.Remote = trace.TraceFlags(flags[0]), true
	return trace.NewSpanContext(c)
}

// call records a call to the broker that's over.
func (t *Telemetry) call(op *operation, began time.Time, took time.Duration, n int, err error, opts ...trace.SpanStartOption) {
	ctx := context.Background()
	opts = append(opts, op.client...)
	_, span := t.tracer.Start(ctx, op.span, append(opts, trace.WithTimestamp(began), trace.WithAttributes(attrBatchCount.Int(n)))...)
	t.end(span, err, trace.WithTimestamp(began.Add(took)))
	if err != nil {
		t.metrics.operation.Record(ctx, took.Seconds(), metric.WithAttributeSet(op.with(attrErrorType.String(errorType(err)))))
		return
	}
	t.metrics.operation.Record(ctx, took.Seconds(), op.record...)
}

func (b *bound) settleCalled(s queue.SettleCall) {
	b.t.call(&b.settle, s.Began, s.Took, s.Acks+s.Releases+s.Defers, s.Err)
	for kind, n := range [...]int{queue.Ack: s.Acks, queue.Release: s.Releases, queue.Defer: s.Defers} {
		if n > 0 {
			b.t.metrics.settlements.Add(context.Background(), int64(n), b.sets.kinds[kind].add...)
		}
	}
}

func (b *bound) settled(s queue.Settled) {
	ctx := context.Background()
	b.t.metrics.wait.Record(ctx, s.Waited.Seconds(), b.sets.base.record...)
	b.t.metrics.outcomes.Add(ctx, 1, b.sets.of(&s).add...)
}

// outcomeSets are the attributes of what's counted for each delivery, made once.
type outcomeSets struct {
	base        measured
	kinds       [3]measured // of settlements
	outcomes    [outcomes]measured
	interrupted measured
}

const outcomes = int(queue.DeadLettered) + 1

func newOutcomeSets(base []attribute.KeyValue) outcomeSets {
	with := func(kv attribute.KeyValue) measured { return measuredAs(append([]attribute.KeyValue{kv}, base...)...) }
	s := outcomeSets{base: measuredAs(base...), interrupted: with(attrOutcome.String("interrupted"))}
	for kind := range s.kinds {
		s.kinds[kind] = with(attrKind.String(queue.SettleKind(kind).String()))
	}
	for kind := range s.outcomes {
		s.outcomes[kind] = with(attrOutcome.String(queue.OutcomeKind(kind).String()))
	}
	return s
}

func (o *outcomeSets) of(s *queue.Settled) *measured {
	if s.Interrupted {
		return &o.interrupted
	}
	return &o.outcomes[s.Outcome.Kind]
}

// consumers are those whose state is observed, by their attributes: one that's started
// again takes the place of its predecessor.
type consumers struct {
	mu sync.Mutex
	by map[attribute.Distinct]observed
}

type observed struct {
	stats func() queue.ConsumerStats
	set   attribute.Set
}

func (c *consumers) add(stats func() queue.ConsumerStats, set attribute.Set) {
	if stats == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[attribute.Distinct]observed{}
	}
	c.by[set.Equivalent()] = observed{stats, set}
}

func (c *consumers) all() []observed {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]observed, 0, len(c.by))
	for _, o := range c.by {
		out = append(out, o)
	}
	return out
}
