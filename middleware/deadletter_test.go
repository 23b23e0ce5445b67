package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

// history reads a dead letter as its consumer would see it.
func history(t *testing.T, m *queue.Message) *queue.DeadLetterInfo {
	t.Helper()
	d := queue.NewDelivery(*m)
	require.NotNil(t, d.DeadLetter, "the copy has no history")
	return d.DeadLetter
}

func TestDeadLetterGivesUp(t *testing.T) {
	t.Parallel()
	aged := func(d *queue.Delivery, age time.Duration) *queue.Delivery {
		d.EnqueuedAt = time.Now().Add(-age)
		return d
	}
	opts := middleware.DeadLetterOptions{Name: "orders-dlq", MaxFailures: 3, MaxAge: time.Hour}
	cases := map[string]struct {
		opts middleware.DeadLetterOptions
		d    func() *queue.Delivery
		h    queue.Handler
		want queue.DeadLetterReason
	}{
		"rejected at once":            {opts, func() *queue.Delivery { return delivery("a", 0) }, returns(queue.Reject(errDown)), queue.ReasonRejected},
		"rejected through wrapping":   {opts, func() *queue.Delivery { return delivery("a", 0) }, returns(fmt.Errorf("order 7: %w", queue.Reject(errDown))), queue.ReasonRejected},
		"the last failure":            {opts, func() *queue.Delivery { return delivery("a", 2) }, fails, queue.ReasonFailures},
		"a later one":                 {opts, func() *queue.Delivery { return delivery("a", 20) }, fails, queue.ReasonFailures},
		"an explicit retry":           {opts, func() *queue.Delivery { return delivery("a", 2) }, returns(queue.RetryAfter(1, errDown)), queue.ReasonFailures},
		"too old":                     {opts, func() *queue.Delivery { return aged(delivery("a", 0), time.Hour) }, fails, queue.ReasonAge},
		"a panic":                     {opts, func() *queue.Delivery { return delivery("a", 2) }, panics, queue.ReasonFailures},
		"a day old, by default":       {middleware.DeadLetterOptions{}, func() *queue.Delivery { return aged(delivery("a", 0), 24*time.Hour) }, fails, queue.ReasonAge},
		"not the last failure":        {opts, func() *queue.Delivery { return delivery("a", 1) }, fails, ""},
		"not yet too old":             {opts, func() *queue.Delivery { return aged(delivery("a", 0), 59*time.Minute) }, fails, ""},
		"no age limit":                {middleware.DeadLetterOptions{MaxAge: -1}, func() *queue.Delivery { return aged(delivery("a", 99), 999*time.Hour) }, fails, ""},
		"age unknown":                 {opts, func() *queue.Delivery { d := delivery("a", 0); d.EnqueuedAt = time.Time{}; return d }, fails, ""},
		"success, however old":        {opts, func() *queue.Delivery { return aged(delivery("a", 9), 99*time.Hour) }, ok, ""},
		"snooze, however old":         {opts, func() *queue.Delivery { return aged(delivery("a", 9), 99*time.Hour) }, returns(queue.Snooze(1)), ""},
		"drop, however old":           {opts, func() *queue.Delivery { return aged(delivery("a", 9), 99*time.Hour) }, returns(queue.Drop(errDown)), ""},
		"moved by somebody else":      {opts, func() *queue.Delivery { return delivery("a", 9) }, returns(queue.WithDeadLettered("x", errDown)), ""},
		"ordered, skip":               {opts, func() *queue.Delivery { d := delivery("a", 2); d.OrderingKey = "k"; return d }, fails, queue.ReasonFailures},
		"ordered, block":              {block(opts), func() *queue.Delivery { d := delivery("a", 9); d.OrderingKey = "k"; return d }, fails, ""},
		"block without an order key":  {block(opts), func() *queue.Delivery { return delivery("a", 9) }, fails, queue.ReasonFailures},
		"a trial's first failure":     {opts, func() *queue.Delivery { return trial(delivery("a", 0)) }, fails, queue.ReasonTrial},
		"a trial that's told to wait": {opts, func() *queue.Delivery { return trial(delivery("a", 0)) }, returns(queue.RetryAfter(1, errDown)), queue.ReasonTrial},
		"a trial that succeeds":       {opts, func() *queue.Delivery { return trial(delivery("a", 0)) }, ok, ""},
		"a trial that's snoozed":      {opts, func() *queue.Delivery { return trial(delivery("a", 0)) }, returns(queue.Snooze(1)), ""},
		"a trial, ordered, block":     {block(opts), func() *queue.Delivery { d := trial(delivery("a", 0)); d.OrderingKey = "k"; return d }, fails, ""},
		"ordered, block, rejected":    {block(opts), func() *queue.Delivery { d := delivery("a", 0); d.OrderingKey = "k"; return d }, returns(queue.Reject(errDown)), queue.ReasonRejected},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := &target{}
			d := tc.d()
			err := queue.Chain(tc.h, middleware.DeadLetter(to, tc.opts))(t.Context(), d)
			if tc.want == "" {
				assert.Empty(t, to.messages())
				if queue.OutcomeOf(err).Kind != queue.DeadLettered { // that one is the handler's own
					assert.Equal(t, queue.OutcomeOf(returnOf(t, tc.h)), queue.OutcomeOf(err))
				}
				return
			}
			require.Equal(t, queue.DeadLettered, queue.OutcomeOf(err).Kind)
			require.Len(t, to.messages(), 1)
			m := to.messages()[0]
			assert.Equal(t, "a", m.ID)
			assert.Equal(t, "body of a", string(m.Body))
			assert.Equal(t, d.OrderingKey, m.OrderingKey)
			info := history(t, m)
			assert.Equal(t, tc.want, info.Reason)
			assert.Equal(t, d.Failures+1, info.Failures)
			assert.Equal(t, "orders", info.Source.Name)
			assert.NotEmpty(t, info.Fingerprint)
			assert.False(t, info.Trial, "it's over")
		})
	}
}

func trial(d *queue.Delivery) *queue.Delivery {
	d.DeadLetter = &queue.DeadLetterInfo{Trial: true, Operation: "op-1"}
	return d
}

func block(o middleware.DeadLetterOptions) middleware.DeadLetterOptions {
	o.OnExhausted = middleware.Block
	return o
}

func returnOf(t *testing.T, h queue.Handler) error {
	t.Helper()
	return h(t.Context(), delivery("a", 0))
}

func TestDeadLetterKeepsThePanicsStack(t *testing.T) {
	t.Parallel()
	to := &target{}
	err := queue.Chain(panics, middleware.DeadLetter(to, middleware.DeadLetterOptions{MaxFailures: 1}))(t.Context(), delivery("a", 0))
	require.Equal(t, queue.DeadLettered, queue.OutcomeOf(err).Kind)
	info := history(t, to.messages()[0])
	assert.Equal(t, "panic: index out of range", info.Error)
	assert.Contains(t, info.Stack, "panics(")
}

func TestDeadLetterIsACopyOfWhatTheBrokerDelivered(t *testing.T) {
	t.Parallel()
	to := &target{}
	spoils := func(_ context.Context, d *queue.Delivery) error {
		d.Body[0] = 'X'
		d.Attributes["tenant"] = "other"
		delete(d.Attributes, "tenant")
		*d = queue.Delivery{Message: queue.Message{ID: "other"}, Failures: -7}
		return queue.Reject(errDown)
	}
	err := queue.Chain(spoils, middleware.DeadLetter(to, middleware.DeadLetterOptions{}))(t.Context(), delivery("a", 4))
	require.Equal(t, queue.DeadLettered, queue.OutcomeOf(err).Kind)
	m := to.messages()[0]
	assert.Equal(t, "a", m.ID)
	assert.Equal(t, "body of a", string(m.Body))
	assert.Equal(t, map[string]string{"tenant": "acme"}, m.Attributes)
	assert.Equal(t, 5, history(t, m).Failures)
}

func TestDeadLetterThatCannotBePublishedComesBack(t *testing.T) {
	t.Parallel()
	errFull := &queue.PublishError{Total: 1, Failed: []queue.EntryError{{Index: 0, Err: queue.ErrFull}}}
	for name, tc := range map[string]struct {
		handler queue.Handler
		want    queue.Outcome
	}{
		"a failure":                {fails, queue.Outcome{Kind: queue.Failed}},
		"a rejection":              {returns(queue.Reject(errDown)), queue.Outcome{Kind: queue.Failed}},
		"a retry keeps its delay":  {returns(queue.RetryAfter(time.Hour, errDown)), queue.Outcome{Kind: queue.Retry, Delay: time.Hour}},
		"a rejection, and joined":  {returns(errors.Join(queue.Reject(errDown), errors.New("x"))), queue.Outcome{Kind: queue.Failed}},
		"a publisher that rejects": {returns(queue.Reject(errDown)), queue.Outcome{Kind: queue.Failed}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := &target{err: errFull}
			if name == "a publisher that rejects" {
				to.err = queue.Drop(queue.ErrFull)
			}
			err := queue.Chain(tc.handler, middleware.DeadLetter(to, middleware.DeadLetterOptions{Name: "dlq", MaxFailures: 1}))(t.Context(), delivery("a", 0))
			assert.Equal(t, tc.want, queue.OutcomeOf(err), "it would be lost, or unroutable")
			require.ErrorIs(t, err, errDown)
			require.ErrorIs(t, err, queue.ErrFull)
			assert.ErrorContains(t, err, "dlq")
			if name == "a failure" {
				var pe *queue.PublishError
				require.ErrorAs(t, err, &pe)
			}
		})
	}
}

func TestDeadLetterLeavesALostLeaseToWhoeverHasItNow(t *testing.T) {
	t.Parallel()
	for name, outcome := range map[string]error{
		"failed":      errors.New("failed"),
		"retry after": queue.RetryAfter(time.Second, errors.New("failed")),
		"rejected":    queue.Reject(errors.New("failed")),
	} {
		to := &target{}
		h := func(context.Context, *queue.Delivery) error { return outcome }
		err := queue.Chain(h, middleware.DeadLetter(to, middleware.DeadLetterOptions{MaxFailures: 1}))(interruptedBy(queue.ErrLeaseLost), delivery("a", 9))
		assert.ErrorIs(t, err, outcome, name)
		assert.Empty(t, to.messages(), name)
	}
}

func TestDeadLetterLeavesInterruptedAttemptsAlone(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{queue.ErrDraining, queue.ErrLeaseLost} {
		to := &target{}
		ctx := interruptedBy(cause)
		err := queue.Chain(fails, middleware.DeadLetter(to, middleware.DeadLetterOptions{MaxFailures: 1}))(ctx, delivery("a", 9))
		assert.True(t, queue.Interrupted(ctx, err))
		assert.Empty(t, to.messages(), "%v says nothing about the message", cause)
	}
}

func TestDeadLetterIsPublishedDuringAShutdown(t *testing.T) {
	t.Parallel()
	to := &target{}
	err := queue.Chain(returns(queue.Reject(errDown)), middleware.DeadLetter(to, middleware.DeadLetterOptions{}))(interruptedBy(queue.ErrDraining), delivery("a", 0))
	require.Equal(t, queue.DeadLettered, queue.OutcomeOf(err).Kind)
	assert.Equal(t, []error{nil}, to.ctxs, "the copy was published with a context that had ended")
}

func TestDeadLetterEndsAPublishThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hangs := queue.PublisherFunc(func(ctx context.Context, _ ...*queue.Message) error {
			<-ctx.Done()
			return ctx.Err()
		})
		start := time.Now()
		err := queue.Chain(returns(queue.Reject(errDown)), middleware.DeadLetter(hangs, middleware.DeadLetterOptions{PublishTimeout: 3 * time.Second}))(t.Context(), delivery("a", 0))
		assert.Equal(t, queue.Failed, queue.OutcomeOf(err).Kind)
		assert.Equal(t, 3*time.Second, time.Since(start))
	})
}

func TestDeadLetterRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	ordered := queue.Capabilities{Source: queue.Endpoint{System: "memory", Name: "orders"}, Attempts: queue.AttemptsExact, Ordering: true}
	plain := ordered
	plain.Ordering = false
	unknown := plain
	unknown.Attempts = queue.AttemptsUnknown
	short := plain
	short.Retention = 10 * time.Hour
	dlq := queue.Capabilities{Source: queue.Endpoint{System: "memory", Name: "orders-dlq"}}
	orderedDLQ := dlq
	orderedDLQ.Ordering = true
	for name, tc := range map[string]struct {
		caps, to queue.Capabilities
		opts     middleware.DeadLetterOptions
		wantErr  string
	}{
		"MaxFailures without counts": {unknown, dlq, middleware.DeadLetterOptions{MaxFailures: 5}, "doesn't count deliveries"},
		"MaxAge without counts":      {unknown, dlq, middleware.DeadLetterOptions{MaxAge: time.Hour}, ""},
		"MaxAge over the retention":  {short, dlq, middleware.DeadLetterOptions{MaxAge: 10 * time.Hour}, "10h0m0s"},
		"MaxAge under the retention": {short, dlq, middleware.DeadLetterOptions{MaxAge: 9 * time.Hour}, ""},
		"the queue itself":           {plain, plain, middleware.DeadLetterOptions{}, "its own dead-letter queue"},
		"unordered for an ordered":   {ordered, dlq, middleware.DeadLetterOptions{}, ""},
		"ordered for an ordered":     {ordered, orderedDLQ, middleware.DeadLetterOptions{OnExhausted: middleware.Block}, ""},
		"block without an order":     {plain, dlq, middleware.DeadLetterOptions{OnExhausted: middleware.Block}, "nothing to block"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := info()
			in.Capabilities = tc.caps
			b, _ := middleware.DeadLetter(&target{caps: tc.to}, tc.opts).(queue.Binder)
			_, err := b.Bind(in)
			if tc.wantErr == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, queue.ErrInvalid)
			require.ErrorContains(t, err, tc.wantErr)
		})
	}
}

func TestDeadLetterTellsItsPolicy(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		opts      middleware.DeadLetterOptions
		retention time.Duration
		want      queue.GiveUp
	}{
		"default":                 {middleware.DeadLetterOptions{}, 0, queue.GiveUp{To: "orders-dlq", MaxAge: 24 * time.Hour}},
		"half a short retention":  {middleware.DeadLetterOptions{}, 10 * time.Hour, queue.GiveUp{To: "orders-dlq", MaxAge: 5 * time.Hour}},
		"long retention":          {middleware.DeadLetterOptions{}, 96 * time.Hour, queue.GiveUp{To: "orders-dlq", MaxAge: 24 * time.Hour}},
		"given":                   {middleware.DeadLetterOptions{Name: "x", MaxAge: time.Hour, MaxFailures: 3}, 0, queue.GiveUp{To: "x", MaxAge: time.Hour, MaxFailures: 3}},
		"never by age":            {middleware.DeadLetterOptions{MaxAge: -1}, 10 * time.Hour, queue.GiveUp{To: "orders-dlq"}},
		"blocking has no limit":   {middleware.DeadLetterOptions{MaxFailures: 3, OnExhausted: middleware.Block}, 0, queue.GiveUp{To: "orders-dlq"}},
		"given half of retention": {middleware.DeadLetterOptions{MaxAge: 8 * time.Hour}, 10 * time.Hour, queue.GiveUp{To: "orders-dlq", MaxAge: 8 * time.Hour}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := info()
			in.Capabilities.Retention = tc.retention
			in.Capabilities.Ordering = true
			to := &target{caps: queue.Capabilities{Source: queue.Endpoint{Name: "orders-dlq"}, Ordering: true}}
			g, isGiveUpper := bind(t, middleware.DeadLetter(to, tc.opts), in).(queue.GiveUpper)
			require.True(t, isGiveUpper)
			assert.Equal(t, tc.want, g.GiveUp())
		})
	}
}

func TestDeadLetterWarnsOfWhatItCannotPrevent(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		opts middleware.DeadLetterOptions
		caps queue.Capabilities
		want string
	}{
		"retention removes":        {middleware.DeadLetterOptions{MaxAge: -1}, queue.Capabilities{Retention: time.Hour}, "retention=1h0m0s"},
		"the broker is faster":     {middleware.DeadLetterOptions{MaxFailures: 10}, queue.Capabilities{Attempts: queue.AttemptsExact, BrokerMaxAttempts: 5}, "broker_max_attempts=5"},
		"the target takes less":    {middleware.DeadLetterOptions{}, queue.Capabilities{Wire: queue.PubSubWire()}, "max_bytes=1048576"},
		"nothing to be said of it": {middleware.DeadLetterOptions{}, queue.Capabilities{Wire: queue.SQSWire(), Retention: time.Hour}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			in := info()
			in.Capabilities = tc.caps
			in.Logger = slog.New(slog.NewTextHandler(&out, nil))
			bind(t, middleware.DeadLetter(&target{caps: queue.Capabilities{Wire: queue.SQSWire(), Source: queue.Endpoint{Name: "dlq"}}}, tc.opts), in)
			if tc.want == "" {
				assert.Empty(t, out.String())
				return
			}
			assert.Contains(t, out.String(), tc.want)
		})
	}
}
