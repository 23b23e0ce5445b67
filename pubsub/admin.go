package pubsub

import (
	"context"
	"fmt"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/anyqueue/anyqueue/queue"
)

// Ensure creates a topic and its subscription, and before them those of the
// dead-letter queue, unless they exist; what differs then is reported and left
// as it is. The subscription doesn't expire. A lease below 10 s, which no
// subscription can have, is left to Open. It refuses QueueSpec.BrokerMaxAttempts,
// Tags and Update with queue.ErrUnsupported for now.
func (b *Backend) Ensure(ctx context.Context, name string, spec *queue.QueueSpec) (*queue.EnsureReport, error) {
	if spec == nil {
		spec = &queue.QueueSpec{}
	}
	r := &queue.EnsureReport{}
	if err := b.ensure(ctx, name, spec, r); err != nil {
		return nil, fmt.Errorf("pubsub: ensure %s: %w", name, err)
	}
	return r, nil
}

func (b *Backend) ensure(ctx context.Context, name string, spec *queue.QueueSpec, r *queue.EnsureReport) error {
	if b.err != nil {
		return b.err
	}
	if err := queue.CheckName(name); err != nil {
		return err
	}
	want, err := b.wanted(name, spec)
	if err != nil {
		return err
	}
	if spec.DeadLetter != "" {
		dead := queue.QueueSpec{Ordered: spec.Ordered, IsDeadLetter: true, DryRun: spec.DryRun}
		if err := b.ensure(ctx, spec.DeadLetter, &dead, r); err != nil {
			return err
		}
	}
	if _, err := b.client.TopicAdminClient.GetTopic(ctx, &pubsubpb.GetTopicRequest{Topic: want.GetTopic()}); err != nil {
		if status.Code(err) != codes.NotFound {
			return classify(err)
		}
		r.Created = append(r.Created, want.GetTopic())
		if !spec.DryRun {
			if _, err := b.client.TopicAdminClient.CreateTopic(ctx, &pubsubpb.Topic{Name: want.GetTopic()}); err != nil && status.Code(err) != codes.AlreadyExists {
				return classify(err)
			}
		}
	}
	got, err := b.client.SubscriptionAdminClient.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{Subscription: want.GetName()})
	if err == nil {
		compare(want, got, r)
		return nil
	}
	if status.Code(err) != codes.NotFound {
		return classify(err)
	}
	r.Created = append(r.Created, want.GetName())
	if spec.DryRun {
		return nil
	}
	_, err = b.client.SubscriptionAdminClient.CreateSubscription(ctx, want)
	if status.Code(err) == codes.InvalidArgument && spec.Retention == 0 && want.GetMessageRetentionDuration() != nil {
		// A service that doesn't know the longest retention, such as Google's emulator.
		want.MessageRetentionDuration = durationpb.New(defaultRetention)
		if _, err = b.client.SubscriptionAdminClient.CreateSubscription(ctx, want); err == nil {
			r.Differences = append(r.Differences, fmt.Sprintf("%s: the retention is %v, as %v was refused", want.GetName(), defaultRetention, longestRetention))
		}
	}
	if err != nil && status.Code(err) != codes.AlreadyExists {
		return classify(err)
	}
	return nil
}

// wanted is the subscription that a new queue gets.
func (b *Backend) wanted(name string, spec *queue.QueueSpec) (*pubsubpb.Subscription, error) {
	if spec.BrokerMaxAttempts != 0 {
		return nil, &queue.UnsupportedError{Feature: "BrokerMaxAttempts", System: system}
	}
	if len(spec.Tags) > 0 {
		return nil, &queue.UnsupportedError{Feature: "Tags", System: system}
	}
	if spec.Update {
		return nil, &queue.UnsupportedError{Feature: "Update", System: system}
	}
	if spec.Lease < 0 || spec.Lease > maxAckDeadline {
		return nil, &queue.InvalidError{Field: "Lease", Reason: fmt.Sprintf("%v is over %v", spec.Lease, maxAckDeadline)}
	}
	s := &pubsubpb.Subscription{
		Name: b.subscription(name), Topic: b.topic(name), EnableMessageOrdering: spec.Ordered,
		ExpirationPolicy: &pubsubpb.ExpirationPolicy{}, // without a ttl: never
	}
	if spec.Lease > 0 {
		s.AckDeadlineSeconds = seconds(max(spec.Lease, minAckDeadline))
	}
	retention := spec.Retention
	if retention == 0 && spec.IsDeadLetter {
		retention = longestRetention
	}
	if retention != 0 {
		if retention < 10*time.Minute || retention > longestRetention {
			return nil, &queue.InvalidError{Field: "Retention", Reason: fmt.Sprintf("%v isn't 10 m to 31 days", retention)}
		}
		s.MessageRetentionDuration = durationpb.New(retention)
	}
	return s, nil
}

// compare says how a subscription differs from what's wanted.
func compare(want, got *pubsubpb.Subscription, r *queue.EnsureReport) {
	differs := func(what string, got, want any) {
		if got != want {
			r.Differences = append(r.Differences, fmt.Sprintf("subscription: %s is %v, not %v", what, got, want))
		}
	}
	differs("topic", got.GetTopic(), want.GetTopic())
	differs("enable_message_ordering", got.GetEnableMessageOrdering(), want.GetEnableMessageOrdering())
	if want.GetAckDeadlineSeconds() != 0 {
		differs("ack_deadline_seconds", got.GetAckDeadlineSeconds(), want.GetAckDeadlineSeconds())
	}
	if want.GetMessageRetentionDuration() != nil {
		differs("message_retention_duration", got.GetMessageRetentionDuration().AsDuration(), want.GetMessageRetentionDuration().AsDuration())
	}
}
