package sqs

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/anyqueue/anyqueue/queue"
)

// Ensure creates a queue, and before it its dead-letter queue, unless they
// exist; what differs then is reported and left as it is.
// QueueSpec.BrokerMaxAttempts becomes the maxReceiveCount of its redrive policy,
// at most 1,000, and needs a dead-letter queue.
func (b *Backend) Ensure(ctx context.Context, name string, spec *queue.QueueSpec) (*queue.EnsureReport, error) {
	if spec == nil {
		spec = &queue.QueueSpec{}
	}
	r := &queue.EnsureReport{}
	if err := b.ensure(ctx, name, spec, r); err != nil {
		return nil, fmt.Errorf("sqs: ensure %s: %w", name, err)
	}
	return r, nil
}

func (b *Backend) ensure(ctx context.Context, name string, spec *queue.QueueSpec, r *queue.EnsureReport) error {
	if b.err != nil {
		return b.err
	}
	want, err := wanted(spec)
	if err != nil {
		return err
	}
	at, err := b.locate(name, &queue.OpenOptions{Ordered: spec.Ordered})
	if err != nil {
		return err
	}
	if spec.DeadLetter != "" {
		dead := queue.QueueSpec{Ordered: spec.Ordered, IsDeadLetter: true, DryRun: spec.DryRun}
		if err := b.ensure(ctx, spec.DeadLetter, &dead, r); err != nil {
			return err
		}
	}
	out, err := b.client.GetQueueUrl(ctx, &awssqs.GetQueueUrlInput{QueueName: &at.name})
	if err == nil {
		return b.compare(ctx, at.name, deref(out.QueueUrl), want, r)
	}
	if !is[*types.QueueDoesNotExist](err) {
		return classify(err)
	}
	r.Created = append(r.Created, "queue "+at.name)
	if spec.DryRun {
		return nil
	}
	if spec.BrokerMaxAttempts > 0 {
		if want[redrivePolicy], err = b.policy(ctx, spec); err != nil {
			return err
		}
	}
	_, err = b.client.CreateQueue(ctx, &awssqs.CreateQueueInput{QueueName: &at.name, Attributes: want})
	if err != nil {
		return classify(err)
	}
	return nil
}

const (
	redrivePolicy   = string(types.QueueAttributeNameRedrivePolicy)
	maxReceiveCount = 1000
)

// policy makes SQS itself move a message after so many receives.
func (b *Backend) policy(ctx context.Context, spec *queue.QueueSpec) (string, error) {
	at, err := b.locate(spec.DeadLetter, &queue.OpenOptions{Ordered: spec.Ordered})
	if err != nil {
		return "", err
	}
	found, err := b.client.GetQueueUrl(ctx, &awssqs.GetQueueUrlInput{QueueName: &at.name})
	if err != nil {
		return "", classify(err)
	}
	arn := string(types.QueueAttributeNameQueueArn)
	out, err := b.client.GetQueueAttributes(ctx, &awssqs.GetQueueAttributesInput{
		QueueUrl: found.QueueUrl, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn},
	})
	if err != nil {
		return "", classify(err)
	}
	policy, err := json.Marshal(map[string]any{
		"deadLetterTargetArn": out.Attributes[arn], "maxReceiveCount": min(spec.BrokerMaxAttempts, maxReceiveCount),
	})
	return string(policy), err
}

// wanted are the attributes that a new queue gets.
func wanted(spec *queue.QueueSpec) (map[string]string, error) {
	if spec.BrokerMaxAttempts < 0 || spec.BrokerMaxAttempts > 0 && spec.DeadLetter == "" {
		return nil, &queue.InvalidError{Field: "BrokerMaxAttempts", Reason: "it must be positive, and needs a DeadLetter"}
	}
	attrs := map[string]string{}
	set := func(field string, name types.QueueAttributeName, d, low, high time.Duration) error {
		if d == 0 {
			return nil
		}
		if d < low || d > high {
			return &queue.InvalidError{Field: field, Reason: fmt.Sprintf("%v isn't %v to %v", d, low, high)}
		}
		attrs[string(name)] = strconv.Itoa(int(seconds(d)))
		return nil
	}
	retention := spec.Retention
	if retention == 0 && spec.IsDeadLetter {
		retention = longestRetention
	}
	if err := set("Lease", types.QueueAttributeNameVisibilityTimeout, spec.Lease, time.Second, maxVisibility); err != nil {
		return nil, err
	}
	if err := set("Retention", types.QueueAttributeNameMessageRetentionPeriod, retention, time.Minute, longestRetention); err != nil {
		return nil, err
	}
	if spec.Ordered {
		attrs[string(types.QueueAttributeNameFifoQueue)] = "true"
	}
	return attrs, nil
}

// compare says how a queue differs from what's wanted.
func (b *Backend) compare(ctx context.Context, name, url string, want map[string]string, r *queue.EnsureReport) error {
	out, err := b.client.GetQueueAttributes(ctx, &awssqs.GetQueueAttributesInput{
		QueueUrl: &url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll},
	})
	if err != nil {
		return classify(err)
	}
	for k, v := range want {
		if got, told := out.Attributes[k]; told && got != v {
			r.Differences = append(r.Differences, fmt.Sprintf("queue %s: %s is %q, not %q", name, k, got, v))
		}
	}
	return nil
}
