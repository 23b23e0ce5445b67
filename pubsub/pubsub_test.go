package pubsub_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
)

func message(body string) *queue.Message { return &queue.Message{Body: []byte(body)} }

func keyed(key, body string) *queue.Message {
	return &queue.Message{Body: []byte(body), OrderingKey: key}
}

func receive(t *testing.T, q queue.Queue, n int) []*queue.Delivery {
	t.Helper()
	var ds []*queue.Delivery
	for len(ds) < n {
		got, err := q.Receive(t.Context(), n-len(ds))
		require.NoError(t, err)
		ds = append(ds, got...)
	}
	return ds
}

func TestOpenReadsTheSubscriptionsSettings(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	q := f.open(t, "orders", &queue.QueueSpec{Ordered: true, Lease: 40 * time.Second, Retention: 24 * time.Hour}, nil)
	caps := q.Capabilities()
	assert.Equal(t, queue.Endpoint{System: "gcp_pubsub", Name: "orders"}, caps.Source)
	assert.Equal(t, "projects/anyqueue-test/subscriptions/orders", caps.Address)
	assert.Equal(t, 40*time.Second, caps.Lease)
	assert.Equal(t, 24*time.Hour, caps.Retention)
	assert.True(t, caps.Ordering)
	assert.False(t, caps.KeyLocked || caps.Dedup)
	assert.Equal(t, queue.AttemptsUnknown, caps.Attempts)
	assert.Empty(t, caps.Assumed)

	f.topic(t, "dead")
	f.topic(t, "counted")
	f.subscribe(t, "counted", "counted", func(s *pubsubpb.Subscription) {
		s.DeadLetterPolicy = &pubsubpb.DeadLetterPolicy{DeadLetterTopic: "projects/anyqueue-test/topics/dead", MaxDeliveryAttempts: 7}
	})
	c, err := f.backend.Open(t.Context(), "counted", nil)
	require.NoError(t, err)
	assert.Equal(t, queue.AttemptsApproximate, c.Capabilities().Attempts)
	assert.Equal(t, 7, c.Capabilities().BrokerMaxAttempts)
}

func TestSettingsThatMayNotBeReadAreAssumedAndSaid(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	_, err := f.backend.Ensure(t.Context(), "orders", nil)
	require.NoError(t, err)
	denied := func(func() error) error { return status.Error(codes.PermissionDenied, "no") }
	f.on("GetSubscription", denied)
	f.on("ListTopicSubscriptions", denied)
	var log bytes.Buffer
	q, err := f.backend.Open(t.Context(), "orders", &queue.OpenOptions{Ordered: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	caps := q.Capabilities()
	assert.Contains(t, caps.Assumed, "ack_deadline")
	assert.Equal(t, 10*time.Second, caps.Lease)
	assert.True(t, caps.Ordering, "as it was asked for")
	assert.Contains(t, log.String(), "ack_deadline")
	rd, ok := queue.As[queue.Redriver](q)
	require.True(t, ok)
	assert.ErrorIs(t, rd.PublishBack(t.Context(), message("a")), queue.ErrUnsupported, "others may subscribe")
}

func TestWhatCannotBeOpened(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.open(t, "orders", nil, nil)
	f.topic(t, "lonely")
	f.topic(t, "crossed")
	f.subscribe(t, "orders", "crossed", nil)
	const project = "projects/anyqueue-test/"
	for _, c := range []struct {
		name    string
		backend *pubsub.Backend
		queue   string
		opts    queue.OpenOptions
		want    error
	}{
		{"a missing queue", f.backend, "missing", queue.OpenOptions{}, queue.ErrQueueNotFound},
		{"a topic without a subscription", f.backend, "lonely", queue.OpenOptions{Mode: queue.ForPublish}, queue.ErrQueueNotFound},
		{"a missing topic", f.backend, "missing", queue.OpenOptions{Mode: queue.ForPublish}, queue.ErrQueueNotFound},
		{"a subscription of another topic", f.backend, "crossed", queue.OpenOptions{}, queue.ErrInvalid},
		{"a name that isn't portable", f.backend, "a.b", queue.OpenOptions{}, queue.ErrInvalid},
		{"no client", pubsub.New(nil, nil), "orders", queue.OpenOptions{}, queue.ErrInvalid},
		{"a wait beyond a minute", pubsub.New(f.client, &pubsub.Options{Wait: time.Hour}), "orders", queue.OpenOptions{}, queue.ErrInvalid},
		{"a lease of half a second", f.backend, "orders", queue.OpenOptions{Lease: time.Second / 2}, queue.ErrInvalid},
		{"a lease of an hour", f.backend, "orders", queue.OpenOptions{Lease: time.Hour}, queue.ErrInvalid},
		{"an unordered subscription as an ordered queue", f.backend, "orders", queue.OpenOptions{Ordered: true}, queue.ErrInvalid},
		{"two subscriptions", f.backend, "orders", queue.OpenOptions{Address: "subscriptions/a,subscriptions/b"}, queue.ErrInvalid},
		{"an address that isn't one", f.backend, "orders", queue.OpenOptions{Address: "orders"}, queue.ErrInvalid},
		{"a topic to consume from", f.backend, "orders", queue.OpenOptions{Address: project + "topics/orders"}, queue.ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := c.backend.Open(t.Context(), c.queue, &c.opts)
			assert.ErrorIs(t, err, c.want)
		})
	}
}

func TestAnAddressLeadsToItsTopic(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.topic(t, "orders")
	f.subscribe(t, "orders", "billing", nil)
	q, err := f.backend.Open(t.Context(), "Billing of Orders", &queue.OpenOptions{Address: "projects/anyqueue-test/subscriptions/billing"})
	require.NoError(t, err)
	require.NoError(t, q.Publish(t.Context(), message("a")))
	assert.Equal(t, "projects/anyqueue-test/topics/orders", made[*pubsubpb.PublishRequest](f, "Publish")[0].GetTopic())
	p, err := f.backend.Open(t.Context(), "orders", &queue.OpenOptions{Address: "projects/anyqueue-test/topics/orders", Mode: queue.ForPublish})
	require.NoError(t, err)
	require.NoError(t, p.Publish(t.Context(), message("a")))
	_, err = p.Receive(t.Context(), 1)
	assert.ErrorIs(t, err, queue.ErrUnsupported)
}

func TestPublishSplitsByCountBytesAndKey(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	q := f.open(t, "orders", &queue.QueueSpec{Ordered: true}, nil)
	many := make([]*queue.Message, 2500)
	for i := range many {
		many[i] = message("x")
	}
	require.NoError(t, q.Publish(t.Context(), many...))
	assert.Len(t, made[*pubsubpb.PublishRequest](f, "Publish"), 3)
	large := message(string(bytes.Repeat([]byte("y"), 4_000_000)))
	f.on("Publish", func(func() error) error {
		return status.Error(codes.PermissionDenied, "more than the in-process server takes")
	})
	require.Error(t, q.Publish(t.Context(), large, large, large))
	assert.Len(t, made[*pubsubpb.PublishRequest](f, "Publish"), 5)
	f.on("Publish", nil)
	require.NoError(t, q.Publish(t.Context(), keyed("a", "1"), keyed("b", "2"), keyed("a", "3"), message("4")))
	requests := made[*pubsubpb.PublishRequest](f, "Publish")[5:]
	assert.Len(t, requests, 3, "a request has messages of one key")
	for _, r := range requests {
		for _, m := range r.GetMessages() {
			assert.Equal(t, r.GetMessages()[0].GetOrderingKey(), m.GetOrderingKey())
		}
	}
}

func TestOutcomesOfPublish(t *testing.T) {
	t.Parallel()
	deny := func(c codes.Code) func(func() error) error {
		return func(func() error) error { return status.Error(c, "no") }
	}
	for _, c := range []struct {
		name    string
		answer  func(forward func() error) error
		is      error
		unknown bool
	}{
		{"no permission", deny(codes.PermissionDenied), queue.ErrPermission, false},
		{"the topic is gone", deny(codes.NotFound), queue.ErrQueueNotFound, false},
		{"an answer that's lost", func(forward func() error) error {
			return errors.Join(forward(), status.Error(codes.Canceled, "lost"))
		}, queue.ErrUnknownOutcome, true},
		{"nobody is there", deny(codes.DeadlineExceeded), nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			q := f.open(t, "orders", nil, nil)
			f.on("Publish", c.answer)
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			err := q.Publish(ctx, message("a"))
			require.Error(t, err)
			if c.is != nil {
				assert.ErrorIs(t, err, c.is)
			}
			assert.Equal(t, c.unknown, errors.Is(err, queue.ErrUnknownOutcome))
		})
	}
}

// One attempt that may have arrived is enough, whatever the last one says.
func TestAnAttemptThatMayHaveArrivedMakesTheOutcomeUnknown(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	q := f.open(t, "orders", nil, nil)
	n := 0
	f.on("Publish", func(forward func() error) error {
		if n++; n == 1 {
			return errors.Join(forward(), status.Error(codes.Unavailable, "lost"))
		}
		return status.Error(codes.PermissionDenied, "no")
	})
	err := q.Publish(t.Context(), message("a"))
	assert.ErrorIs(t, err, queue.ErrUnknownOutcome)
	assert.ErrorIs(t, err, queue.ErrPermission)
}

func TestNothingOvertakesWhatFailed(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	q := f.open(t, "orders", &queue.QueueSpec{Ordered: true}, nil)
	var msgs []*queue.Message
	for range 1500 {
		msgs = append(msgs, keyed("k", "x"))
	}
	f.on("Publish", func(func() error) error { return status.Error(codes.PermissionDenied, "no") })
	err := q.Publish(t.Context(), msgs...)
	errs := queue.PublishErrors(err, len(msgs))
	assert.ErrorIs(t, errs[0], queue.ErrPermission)
	assert.ErrorContains(t, errs[1499], "not sent")
	assert.Len(t, made[*pubsubpb.PublishRequest](f, "Publish"), 1)
}

type foreignOption struct{}

func (foreignOption) System() string { return "gcp_pubsub" }

func TestAnOptionThatIsNotKnownIsRefused(t *testing.T) {
	t.Parallel()
	m := message("a")
	m.Options = []queue.MessageOption{foreignOption{}}
	assert.ErrorIs(t, newFake(t).open(t, "orders", nil, nil).Publish(t.Context(), m), queue.ErrUnsupported)
}

func TestADeliveryHasWhatPubSubSays(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	q := f.open(t, "orders", &queue.QueueSpec{Ordered: true}, &queue.OpenOptions{Lease: 90 * time.Second})
	require.NoError(t, q.Publish(t.Context(), &queue.Message{ID: "mine", Body: []byte("hello"), OrderingKey: "k", Attributes: map[string]string{"n": "7"}}))
	d := receive(t, q, 1)[0]
	assert.Equal(t, "mine", d.ID)
	assert.Equal(t, "hello", string(d.Body))
	assert.Equal(t, "k", d.OrderingKey)
	assert.Equal(t, map[string]string{"n": "7"}, d.Attributes)
	assert.Zero(t, d.Attempt)
	assert.WithinDuration(t, time.Now().Add(90*time.Second), d.Deadline, 10*time.Second)
	assert.WithinDuration(t, time.Now(), d.EnqueuedAt, 10*time.Second)
	info, ok := pubsub.InfoOf(d)
	assert.True(t, ok)
	assert.Equal(t, d.BrokerID, info.MessageID)
	assert.Equal(t, "projects/anyqueue-test/subscriptions/orders", info.Subscription)
	assert.Contains(t, info.Attributes, queue.MetaAttribute)
	assert.EqualValues(t, 90, made[*pubsubpb.ModifyAckDeadlineRequest](f, "ModifyAckDeadline")[0].GetAckDeadlineSeconds())

	// Whatever the handler does to its own.
	d.Body[0], d.Attributes["n"] = 'J', "8"
	body, attrs := d.Native.(queue.Original).Original()
	assert.Equal(t, "hello", string(body))
	assert.Equal(t, "7", attrs["n"])
}

func TestReleasesGoInOneRequestForEachDelay(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	q := f.open(t, "orders", nil, nil)
	require.NoError(t, q.Publish(t.Context(), message("a"), message("b"), message("c"), message("d")))
	ds := receive(t, q, 4)
	require.NoError(t, q.Settle(t.Context(),
		queue.Settlement{Delivery: ds[0], Kind: queue.Release, Delay: 1100 * time.Millisecond},
		queue.Settlement{Delivery: ds[1], Kind: queue.Release, Delay: 2 * time.Second},
		queue.Settlement{Delivery: ds[2], Kind: queue.Release, Delay: time.Hour},
		queue.Settlement{Delivery: ds[3], Kind: queue.Ack},
	))
	got := map[int32]int{}
	for _, r := range made[*pubsubpb.ModifyAckDeadlineRequest](f, "ModifyAckDeadline") {
		got[r.GetAckDeadlineSeconds()] = len(r.GetAckIds())
	}
	assert.Equal(t, map[int32]int{2: 2, 600: 1}, got, "rounded up, and 10 minutes at most")
	assert.Len(t, made[*pubsubpb.AcknowledgeRequest](f, "Acknowledge")[0].GetAckIds(), 1)
}

func TestExtendSaysWhatWasGranted(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	q := f.open(t, "orders", nil, nil)
	require.NoError(t, q.Publish(t.Context(), message("a")))
	d := receive(t, q, 1)[0]
	granted, err := q.Extend(t.Context(), time.Hour, d, &queue.Delivery{})
	assert.ErrorIs(t, err, queue.ErrInvalid, "the second isn't ours")
	assert.WithinDuration(t, time.Now().Add(10*time.Minute), granted[0], 10*time.Second)
	assert.True(t, granted[1].IsZero())
	_, err = q.Extend(t.Context(), 0, d)
	assert.ErrorIs(t, err, queue.ErrInvalid, "that would give it back")
	f.on("ModifyAckDeadline", func(func() error) error { return status.Error(codes.PermissionDenied, "no") })
	granted, err = q.Extend(t.Context(), time.Minute, d)
	assert.ErrorIs(t, err, queue.ErrPermission)
	assert.True(t, granted[0].IsZero())
}

func TestADeferThatIsRepeatedPublishesOneCopy(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	q := f.open(t, "orders", nil, nil)
	require.NoError(t, q.Publish(t.Context(), message("hello")))
	d := receive(t, q, 1)[0]
	d.Body[0] = 'J' // by the handler
	f.on("Acknowledge", func(func() error) error { return status.Error(codes.PermissionDenied, "no") })
	s := queue.Settlement{Delivery: d, Kind: queue.Defer, Until: time.Now().Add(time.Hour)}
	require.Error(t, q.Settle(t.Context(), s))
	f.on("Acknowledge", nil)
	require.NoError(t, q.Settle(t.Context(), s))
	requests := made[*pubsubpb.PublishRequest](f, "Publish")
	require.Len(t, requests, 2, "the message and its copy")
	assert.Equal(t, "hello", string(requests[1].GetMessages()[0].GetData()))
	hop := receive(t, q, 1)[0]
	assert.WithinDuration(t, s.Until, hop.Due(), time.Millisecond)
}

// What's published again mustn't reach the other subscribers of a topic.
func TestASharedTopicIsNotPublishedToAgain(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.topic(t, "orders")
	f.subscribe(t, "orders", "orders", nil)
	f.subscribe(t, "orders", "billing", nil)
	q, err := f.backend.Open(t.Context(), "orders", nil)
	require.NoError(t, err)
	require.NoError(t, q.Publish(t.Context(), message("a")))
	d := receive(t, q, 1)[0]
	err = q.Settle(t.Context(), queue.Settlement{Delivery: d, Kind: queue.Defer, Until: time.Now().Add(time.Hour)})
	assert.ErrorIs(t, err, queue.ErrUnsupported)
	rd, ok := queue.As[queue.Redriver](q)
	require.True(t, ok)
	assert.ErrorIs(t, rd.PublishBack(t.Context(), message("b")), queue.ErrUnsupported)
	assert.Len(t, made[*pubsubpb.PublishRequest](f, "Publish"), 1)
}

func TestWhatComesAfterItsReceiverHasGoneIsGivenBack(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	q := f.open(t, "orders", nil, nil)
	require.NoError(t, q.Publish(t.Context(), message("a")))
	gone := make(chan struct{})
	f.on("Pull", func(forward func() error) error {
		<-gone
		return forward()
	})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err := q.Receive(ctx, 1)
	require.ErrorIs(t, err, context.Canceled)
	close(gone)
	require.NoError(t, q.Close(t.Context())) // waits for it
	r := made[*pubsubpb.ModifyAckDeadlineRequest](f, "ModifyAckDeadline")
	require.Len(t, r, 1)
	assert.Zero(t, r[0].GetAckDeadlineSeconds())
}

func TestEnsureCreatesWhatIsMissingAndReportsWhatDiffers(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	spec := &queue.QueueSpec{DeadLetter: "dead", DryRun: true}
	want := []string{
		"projects/anyqueue-test/topics/dead", "projects/anyqueue-test/subscriptions/dead",
		"projects/anyqueue-test/topics/orders", "projects/anyqueue-test/subscriptions/orders",
		"projects/anyqueue-test/topics/orders.return", "projects/anyqueue-test/subscriptions/orders.return",
	}
	r, err := f.backend.Ensure(t.Context(), "orders", spec)
	require.NoError(t, err)
	assert.Equal(t, want, r.Created)
	_, err = f.backend.Open(t.Context(), "orders", nil)
	assert.ErrorIs(t, err, queue.ErrQueueNotFound)
	spec.DryRun = false
	r, err = f.backend.Ensure(t.Context(), "orders", spec)
	require.NoError(t, err)
	assert.Equal(t, want, r.Created)
	spec.Ordered, spec.DeadLetter = true, ""
	r, err = f.backend.Ensure(t.Context(), "orders", spec)
	require.NoError(t, err)
	assert.Empty(t, r.Created)
	assert.Equal(t, []string{
		"projects/anyqueue-test/subscriptions/orders: message ordering is false, not true",
		"projects/anyqueue-test/subscriptions/orders.return: message ordering is false, not true",
	}, r.Differences)
}
