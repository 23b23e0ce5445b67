package queue

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type purgingQueue struct {
	Queue
	name string
}

func (purgingQueue) Purge(context.Context) error { return nil }

type publisherWrapper struct{ Publisher }

func (w publisherWrapper) Unwrap() Publisher { return w.Publisher }

type subscriberWrapper struct{ Subscriber }

func (w subscriberWrapper) Unwrap() Subscriber { return w.Subscriber }

type queueWrapper struct{ Queue }

func (w queueWrapper) Unwrap() Queue { return w.Queue }

type backendWrapper struct{ Backend }

func (w backendWrapper) Unwrap() Backend { return w.Backend }

type ensuringBackend struct {
	Backend
	Ensurer
}

func TestAsLooksThroughWrappers(t *testing.T) {
	t.Parallel()
	q := purgingQueue{name: "here"}
	for name, v := range map[string]any{
		"itself":       q,
		"a publisher":  publisherWrapper{q},
		"a subscriber": subscriberWrapper{q},
		"a queue":      queueWrapper{q},
		"many":         publisherWrapper{queueWrapper{queueWrapper{q}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, ok := As[Purger](v)
			require.True(t, ok)
			assert.Equal(t, "here", p.(purgingQueue).name)
			_, ok = As[Inspector](v)
			assert.False(t, ok)
		})
	}
	_, ok := As[Ensurer](backendWrapper{ensuringBackend{}})
	assert.True(t, ok)
}

func TestAsFindsTheOutermost(t *testing.T) {
	t.Parallel()
	p, ok := As[Purger](publisherWrapper{purgingQueue{queueWrapper{purgingQueue{name: "inner"}}, "outer"}})
	require.True(t, ok)
	assert.Equal(t, "outer", p.(purgingQueue).name)
}

func TestAsOfNothingFindsNothing(t *testing.T) {
	t.Parallel()
	for _, v := range []any{nil, publisherWrapper{}, queueWrapper{}, 7} {
		_, ok := As[Purger](v)
		assert.False(t, ok, "%#v", v)
	}
}
