// Package cloudmonitoring tells package pubsub how many messages a subscription has,
// as Google Cloud Monitoring knows it:
//
//	metrics, err := cloudmonitoring.New(ctx) // credentials as Google's libraries find them
//	backend := pubsub.NewBackend(&pubsub.Options{Metrics: metrics})
//
// The numbers are minutes old: Google samples such metrics once a minute and shows
// them up to two minutes later (https://docs.cloud.google.com/monitoring/api/metrics_gcp_p_z).
// A subscription without activity may have none. The role roles/monitoring.viewer is
// needed, on the project of the subscription. A call reads one metric of one
// subscription, in one request.
//
// It hasn't been run against Google Cloud yet; its tests run on a server that speaks
// the documented JSON.
package cloudmonitoring

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"google.golang.org/api/googleapi"
	monitoring "google.golang.org/api/monitoring/v3"
	"google.golang.org/api/option"

	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
)

// Metrics reads from Cloud Monitoring. It may be used concurrently.
type Metrics struct{ service *monitoring.Service }

var _ pubsub.Metrics = (*Metrics)(nil)

// New returns Metrics with a client of its own. Options are those of Google's
// clients, such as credentials.
func New(ctx context.Context, opts ...option.ClientOption) (*Metrics, error) {
	service, err := monitoring.NewService(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("cloudmonitoring: %w", err)
	}
	return &Metrics{service}, nil
}

// window is how far back a value is looked for: a few minutes more than it takes
// until one can be seen.
const window = 10 * time.Minute

// Latest returns the newest value of a metric of Pub/Sub for a subscription, and when
// it was measured; false when there's none in the last ten minutes. A project that
// doesn't exist or may not be read is a queue.ErrPermission, too many requests a
// queue.ErrThrottled.
func (m *Metrics) Latest(ctx context.Context, subscription, metric string) (value float64, at time.Time, ok bool, err error) {
	project, id, ok := split(subscription)
	if !ok {
		return 0, time.Time{}, false, &queue.InvalidError{Field: "subscription", Reason: fmt.Sprintf("%q isn't a full name", subscription)}
	}
	now := time.Now()
	page, err := m.service.Projects.TimeSeries.List("projects/" + project).
		Filter(fmt.Sprintf(`metric.type = "pubsub.googleapis.com/subscription/%s" AND resource.labels.subscription_id = %q`, metric, id)).
		IntervalStartTime(now.Add(-window).Format(time.RFC3339)).IntervalEndTime(now.Format(time.RFC3339)).
		View("FULL").Context(ctx).Do()
	if err != nil {
		return 0, time.Time{}, false, fmt.Errorf("cloudmonitoring: %s of %s: %w", metric, subscription, classify(err))
	}
	return newest(page.TimeSeries)
}

func split(subscription string) (project, id string, ok bool) {
	parts := strings.Split(subscription, "/")
	if len(parts) != 4 || parts[0] != "projects" || parts[2] != "subscriptions" {
		return "", "", false
	}
	return parts[1], parts[3], true
}

// newest returns the latest of all points: there may be several series, as others
// have been for a subscription of the same name that was deleted.
func newest(series []*monitoring.TimeSeries) (value float64, at time.Time, ok bool, err error) {
	for _, s := range series {
		for _, p := range s.Points {
			if p.Interval == nil || p.Value == nil {
				continue
			}
			t, err := time.Parse(time.RFC3339Nano, p.Interval.EndTime)
			if err != nil {
				return 0, time.Time{}, false, fmt.Errorf("cloudmonitoring: the time of a point: %w", err)
			}
			if ok && !t.After(at) {
				continue
			}
			switch v := p.Value; {
			case v.Int64Value != nil:
				value = float64(*v.Int64Value)
			case v.DoubleValue != nil:
				value = *v.DoubleValue
			default:
				continue
			}
			at, ok = t, true
		}
	}
	return value, at, ok, nil
}

func classify(err error) error {
	api, is := errors.AsType[*googleapi.Error](err)
	if !is {
		return err
	}
	switch api.Code {
	case http.StatusForbidden, http.StatusUnauthorized, http.StatusNotFound:
		return fmt.Errorf("%w: %w", queue.ErrPermission, err)
	case http.StatusTooManyRequests:
		return fmt.Errorf("%w: %w", queue.ErrThrottled, err)
	}
	return err
}
