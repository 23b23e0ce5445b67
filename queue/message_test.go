package queue

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type testOption string

func (o testOption) System() string { return string(o) }

func TestOptionsForTakesItsOwnAndRefusesOthers(t *testing.T) {
	t.Parallel()
	a, b := testOption("a"), testOption("b")
	cases := map[string]struct {
		options []MessageOption
		want    []MessageOption
		err     error
	}{
		"none":                {nil, nil, nil},
		"own":                 {[]MessageOption{a}, []MessageOption{a}, nil},
		"own as a hint":       {[]MessageOption{Hint(a)}, []MessageOption{a}, nil},
		"own as a hint twice": {[]MessageOption{Hint(Hint(a))}, []MessageOption{a}, nil},
		"hint for another":    {[]MessageOption{Hint(b), a}, []MessageOption{a}, nil},
		"for another":         {[]MessageOption{a, b}, nil, ErrUnsupported},
		"nil":                 {[]MessageOption{nil}, nil, ErrInvalid},
		"nil hint":            {[]MessageOption{Hint(nil)}, nil, ErrInvalid},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := OptionsFor("a", &Message{Options: c.options})
			require.ErrorIs(t, err, c.err)
			assert.Equal(t, c.want, got)
		})
	}
}

func TestAgeCountsFromTheLatestBeginning(t *testing.T) {
	t.Parallel()
	at := func(h int) time.Time { return time.Unix(0, 0).Add(time.Duration(h) * time.Hour) }
	cases := map[string]struct {
		d    Delivery
		want time.Time
	}{
		"unknown":            {Delivery{}, time.Time{}},
		"enqueued":           {Delivery{EnqueuedAt: at(1)}, at(1)},
		"due":                {Delivery{EnqueuedAt: at(1), carried: &metadata{due: at(2)}}, at(2)},
		"due before":         {Delivery{EnqueuedAt: at(3), carried: &metadata{due: at(2)}}, at(3)},
		"redriven":           {Delivery{EnqueuedAt: at(1), carried: &metadata{due: at(2), ageFrom: at(4), deadLetter: &DeadLetterInfo{LastAt: at(3)}}}, at(4)},
		"in the dead letter": {Delivery{EnqueuedAt: at(1), carried: &metadata{deadLetter: &DeadLetterInfo{LastAt: at(3)}}}, at(3)},
	}
	for name, c := range cases {
		assert.True(t, c.want.Equal(c.d.AgeFrom()), name)
	}
}

func TestWrapPublisherPutsTheFirstOutermost(t *testing.T) {
	t.Parallel()
	var order []string
	mw := func(name string) PublisherMiddleware {
		return func(p Publisher) Publisher {
			return PublisherFunc(func(ctx context.Context, msgs ...*Message) error {
				order = append(order, name)
				return p.Publish(ctx, msgs...)
			})
		}
	}
	p := WrapPublisher(PublisherFunc(func(context.Context, ...*Message) error { return errTest }), mw("a"), mw("b"))
	require.ErrorIs(t, p.Publish(context.Background()), errTest)
	assert.Equal(t, []string{"a", "b"}, order)
}

func TestPublishHasADeadline(t *testing.T) {
	t.Parallel()
	ctx, cancel := PublishContext(context.Background())
	at, ok := ctx.Deadline()
	require.True(t, ok)
	assert.WithinDuration(t, time.Now().Add(DefaultPublishTimeout), at, 5*time.Second)
	cancel()
	require.Error(t, ctx.Err())

	own, cancelOwn := context.WithTimeout(context.Background(), time.Hour)
	defer cancelOwn()
	ctx, cancel = PublishContext(own)
	cancel()
	assert.NoError(t, ctx.Err(), "the caller's context isn't cancelled")
}

func TestEndpointString(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "aws_sqs/orders", Endpoint{"aws_sqs", "orders"}.String())
	assert.Equal(t, "orders", Endpoint{Name: "orders"}.String())
}
