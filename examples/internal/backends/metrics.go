package backends

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/pubsub/cloudmonitoring"
)

// Metrics are those of Google Cloud Monitoring, made when they're first asked for; nil
// on the emulator, which has none.
func Metrics(lookup func(string) (string, bool)) pubsub.Metrics {
	if emulator, ok := lookup("PUBSUB_EMULATOR_HOST"); ok && emulator != "" {
		return nil
	}
	return Lazily(func(ctx context.Context) (pubsub.Metrics, error) { return cloudmonitoring.New(ctx) })
}

// Lazily are metrics that are made when they're first asked for. If they can't be, that's
// said once, and everything is unknown.
func Lazily(build func(context.Context) (pubsub.Metrics, error)) pubsub.Metrics {
	return &lazy{build: build}
}

type lazy struct {
	build func(context.Context) (pubsub.Metrics, error)
	once  sync.Once
	made  pubsub.Metrics // nil: it failed
}

// Latest implements pubsub.Metrics.
func (l *lazy) Latest(ctx context.Context, subscription, metric string) (value float64, at time.Time, ok bool, err error) {
	l.once.Do(func() {
		// The client lives on, whoever has asked first.
		made, err := l.build(context.WithoutCancel(ctx))
		if err != nil {
			slog.Warn("no numbers of Pub/Sub: Cloud Monitoring can't be asked", "err", err)
			return
		}
		l.made = made
	})
	if l.made == nil {
		return 0, time.Time{}, false, nil
	}
	return l.made.Latest(ctx, subscription, metric)
}
