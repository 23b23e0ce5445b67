package middleware_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

func TestDelayIsForMessagesThatSayNothingAboutTheirTime(t *testing.T) {
	t.Parallel()
	to := &target{}
	p := queue.WrapPublisher(to, middleware.Delay(5*time.Second))
	past := time.Unix(1, 0)
	msgs := []*queue.Message{
		{ID: "plain"},
		{ID: "own delay", Delay: time.Minute},
		nil,
		{ID: "own time", DeliverAt: past},
		{ID: "ordered", OrderingKey: "k"},
	}
	require.NoError(t, p.Publish(t.Context(), msgs...))
	got := to.messages()
	require.Len(t, got, len(msgs), "the indices of a PublishError would be wrong")
	assert.Equal(t, &queue.Message{ID: "plain", Delay: 5 * time.Second}, got[0])
	assert.Same(t, msgs[1], got[1])
	assert.Nil(t, got[2])
	assert.Same(t, msgs[3], got[3])
	assert.Equal(t, 5*time.Second, got[4].Delay, "whether a key can be delayed is for the queue to say")
	assert.Equal(t, &queue.Message{ID: "plain"}, msgs[0], "the caller's message was written to")
}

func TestDelayLetsErrorsThroughByIndex(t *testing.T) {
	t.Parallel()
	want := &queue.PublishError{Total: 2, Failed: []queue.EntryError{{Index: 1, Err: queue.ErrFull}}}
	p := middleware.Delay(time.Second)(&target{err: want})
	err := p.Publish(t.Context(), &queue.Message{}, &queue.Message{})
	assert.Equal(t, []error{nil, queue.ErrFull}, queue.PublishErrors(err, 2))
}

func TestDelayOfZeroChangesNothing(t *testing.T) {
	t.Parallel()
	to := &target{}
	assert.Same(t, to, middleware.Delay(0)(to))
}

func TestDelayThatIsNegativeIsRefused(t *testing.T) {
	t.Parallel()
	to := &target{}
	require.ErrorIs(t, middleware.Delay(-1)(to).Publish(t.Context(), &queue.Message{}), queue.ErrInvalid)
	assert.Empty(t, to.messages())
}

func TestDelayHidesNoCapability(t *testing.T) {
	t.Parallel()
	to := &target{}
	got, found := queue.As[*target](queue.WrapPublisher(to, middleware.Delay(time.Second)))
	require.True(t, found)
	assert.Same(t, to, got)
}
