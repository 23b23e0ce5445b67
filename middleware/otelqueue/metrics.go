package otelqueue

import (
	"context"
	"errors"
	"slices"

	"go.opentelemetry.io/otel/metric"

	"github.com/anyqueue/anyqueue/queue"
)

// instruments are made once for a Telemetry.
type instruments struct {
	operation, process, wait  metric.Float64Histogram
	sent, consumed            metric.Int64Counter
	outcomes, leasesLost      metric.Int64Counter
	settlements, settleFailed metric.Int64Counter
	depth                     metric.Int64Gauge
	oldest                    metric.Float64Gauge
	limit, inUse, held        metric.Int64ObservableGauge
}

// seconds are the buckets that the conventions advise for durations.
var seconds = metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

func (m *instruments) init(meter metric.Meter, running *consumers) error {
	var errs [13]error
	m.operation, errs[0] = meter.Float64Histogram(metricOperationDuration, metric.WithUnit("s"), seconds,
		metric.WithDescription("Duration of messaging operation initiated by a producer or consumer client."))
	m.process, errs[1] = meter.Float64Histogram(metricProcessDuration, metric.WithUnit("s"), seconds,
		metric.WithDescription("Duration of processing operation."))
	m.sent, errs[2] = meter.Int64Counter(metricSent, metric.WithUnit("{message}"),
		metric.WithDescription("Number of messages producer attempted to send to the broker."))
	m.consumed, errs[3] = meter.Int64Counter(metricConsumed, metric.WithUnit("{message}"),
		metric.WithDescription("Number of messages that were delivered to the application."))
	m.wait, errs[4] = meter.Float64Histogram(metricWait, metric.WithUnit("s"), seconds,
		metric.WithDescription("From the receive of a message to the start of its handler."))
	m.outcomes, errs[5] = meter.Int64Counter(metricOutcomes, metric.WithUnit("{message}"),
		metric.WithDescription("Handlers that have returned, by what becomes of the message."))
	m.leasesLost, errs[6] = meter.Int64Counter(metricLeasesLost, metric.WithUnit("{message}"),
		metric.WithDescription("Leases lost while the handler ran."))
	m.settlements, errs[7] = meter.Int64Counter(metricSettlements, metric.WithUnit("{message}"),
		metric.WithDescription("Settlements sent to the broker; one that's tried again counts again."))
	m.settleFailed, errs[8] = meter.Int64Counter(metricSettleFailed, metric.WithUnit("{message}"),
		metric.WithDescription("Settlements given up: the message comes again."))
	m.depth, errs[9] = meter.Int64Gauge(metricDepth, metric.WithUnit("{message}"),
		metric.WithDescription("Messages in a queue by state, as the broker tells."))
	m.oldest, errs[10] = meter.Float64Gauge(metricOldestAge, metric.WithUnit("s"),
		metric.WithDescription("Age of the oldest message that isn't done, as the broker tells."))
	m.limit, errs[11] = meter.Int64ObservableGauge(metricLimit, metric.WithUnit("{handler}"),
		metric.WithDescription("Most handlers at once."))
	m.inUse, errs[12] = meter.Int64ObservableGauge(metricInUse, metric.WithUnit("{handler}"),
		metric.WithDescription("Handlers running."))
	held, err := meter.Int64ObservableGauge(metricHeld, metric.WithUnit("{message}"),
		metric.WithDescription("Messages received that wait for a slot, a gate, their key or their time."))
	m.held = held
	if err := errors.Join(append(errs[:], err)...); err != nil {
		return err
	}
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, c := range running.all() {
			set := metric.WithAttributeSet(c.set)
			o.ObserveInt64(m.limit, c.limit, set)
			o.ObserveInt64(m.inUse, c.inUse, set)
			o.ObserveInt64(m.held, c.held, set)
		}
		return nil
	}, m.limit, m.inUse, m.held)
	return err
}

// RecordStats records what a broker tells of a queue, which has an address, as in its
// Capabilities. What's unknown isn't recorded. It's for whoever asks the broker anyway,
// such as admin.Admin.Collect: a telemetry that asked by itself would cost requests.
func (t *Telemetry) RecordStats(ctx context.Context, source queue.Endpoint, address string, s queue.Stats) {
	base := slices.Clip(destinationOf(&queue.Capabilities{Source: source, Address: address}, consuming))
	for state, n := range map[string]*int64{"ready": s.Ready, "in_flight": s.InFlight, "delayed": s.Delayed, "total": s.Total} {
		if n != nil {
			t.metrics.depth.Record(ctx, *n, metric.WithAttributes(append(base, attrState.String(state))...))
		}
	}
	if s.OldestAge != nil {
		t.metrics.oldest.Record(ctx, s.OldestAge.Seconds(), metric.WithAttributes(base...))
	}
}
