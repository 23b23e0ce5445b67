package pubsub

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// difference is what a subscription has and what it should have.
type difference struct {
	what, have, want string // in words
	field            string // of the API; empty: it can't be changed
}

// compare says how a subscription differs from what's wanted, and changes it if
// that was asked for.
func (e *ensuring) compare(ctx context.Context, have *pubsubpb.Subscription, w *wantedSubscription) error {
	var found []difference
	differs := func(what, field string, have, want any) {
		if have != want {
			found = append(found, difference{what, fmt.Sprint(have), fmt.Sprint(want), field})
		}
	}
	differs("the topic", "", have.GetTopic(), w.topic)
	differs("message ordering", "", have.GetEnableMessageOrdering(), w.ordered)
	differs("the filter", "", orNone(have.GetFilter()), "none")
	if w.exactlyOnce {
		differs("exactly-once delivery", "enable_exactly_once_delivery", have.GetEnableExactlyOnceDelivery(), true)
	}
	if w.ackDeadline > 0 {
		differs("the lease", "ack_deadline_seconds", time.Duration(have.GetAckDeadlineSeconds())*time.Second, w.ackDeadline)
	}
	if w.retention > 0 && have.GetMessageRetentionDuration() != nil {
		differs("the retention", "message_retention_duration", have.GetMessageRetentionDuration().AsDuration(), w.retention)
	}
	if ttl := have.GetExpirationPolicy().GetTtl(); ttl != nil {
		differs("it expires without activity after", "expiration_policy", ttl.AsDuration().String(), "never")
	}
	// It would stretch the pauses that a consumer asks for.
	differs("the retry policy", "retry_policy", retryInWords(have.GetRetryPolicy()), "none")
	if w.deadTopic != "" {
		differs("the dead-letter policy", "dead_letter_policy", policyInWords(have.GetDeadLetterPolicy()), policyInWords(w.policy()))
	}
	labels := maps.Clone(have.GetLabels())
	if d, all := missingLabels(labels, w.labels); d != nil {
		labels = all
		found = append(found, *d)
	}
	next := w.message()
	next.Labels, next.MessageRetentionDuration = labels, durationpb.New(w.retention)
	return e.settle(ctx, w.name, found, func(field string) error {
		_, err := e.client.SubscriptionAdminClient.UpdateSubscription(ctx, &pubsubpb.UpdateSubscriptionRequest{
			Subscription: next, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{field}},
		})
		return err
	})
}

func (e *ensuring) compareTopic(ctx context.Context, have *pubsubpb.Topic, labels map[string]string) error {
	d, all := missingLabels(have.GetLabels(), labels)
	if d == nil {
		return nil
	}
	return e.settle(ctx, have.GetName(), []difference{*d}, func(field string) error {
		_, err := e.client.TopicAdminClient.UpdateTopic(ctx, &pubsubpb.UpdateTopicRequest{
			Topic: &pubsubpb.Topic{Name: have.GetName(), Labels: all}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{field}},
		})
		return err
	})
}

// missingLabels tells which labels aren't there, and what all would be with them;
// nil when none is missing.
func missingLabels(have, want map[string]string) (*difference, map[string]string) {
	all := maps.Clone(have)
	if all == nil {
		all = map[string]string{}
	}
	var had, wanted []string
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if v, ok := have[k]; ok && v == want[k] {
			continue
		} else if ok {
			had = append(had, k+"="+strconv.Quote(v))
		}
		wanted = append(wanted, k+"="+strconv.Quote(want[k]))
		all[k] = want[k]
	}
	if wanted == nil {
		return nil, nil
	}
	d := &difference{"the labels", "none of these", fmt.Sprint(wanted), "labels"}
	if had != nil {
		d.have = fmt.Sprint(had)
	}
	return d, all
}

// settle reports differences, or ends them, each by itself: one that's refused
// doesn't keep the others.
func (e *ensuring) settle(ctx context.Context, name string, found []difference, update func(field string) error) error {
	for _, d := range found {
		if !e.update || d.field == "" {
			e.differs("%s: %s is %s, not %s", name, d.what, d.have, d.want)
			continue
		}
		if !e.dry {
			err := update(d.field)
			switch status.Code(err) { //nolint:exhaustive // the others are errors
			case codes.InvalidArgument, codes.FailedPrecondition, codes.Unimplemented:
				e.differs("%s: %s is %s, not %s, and can't be changed: %s", name, d.what, d.have, d.want, status.Convert(err).Message())
				continue
			}
			if err != nil {
				return classifyOpen(ctx, err)
			}
		}
		e.report.Changed = append(e.report.Changed, fmt.Sprintf("%s: %s from %s to %s", name, d.what, d.have, d.want))
	}
	return nil
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func policyInWords(p *pubsubpb.DeadLetterPolicy) string {
	if p == nil {
		return "none"
	}
	return fmt.Sprintf("%s after %d attempts", p.GetDeadLetterTopic(), p.GetMaxDeliveryAttempts())
}
