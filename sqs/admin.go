package sqs

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

// Ensure creates a queue, and before it its dead-letter queue, unless they
// exist. It may be called at every start of every program: what's there already is
// left as it is, and the report says in words how it differs from what was asked.
// With QueueSpec.Update it's changed instead; SQS may take 60 s until settings
// hold everywhere, and 15 minutes for the retention, which may end messages that are
// there.
//
// Lease and retention are rounded up to whole seconds. A dead-letter queue keeps
// its messages for 14 days, SQS's longest, and is a FIFO queue if the queue is
// one; it gets the queue's tags. QueueSpec.DeadLetterSpec can say otherwise.
// QueueSpec.BrokerMaxAttempts becomes the maxReceiveCount of a redrive policy, at
// most 1,000, and needs a dead-letter queue; without it no policy is set, as SQS
// counts receives and not failures.
//
// A queue that was deleted within the last minute can't be created yet: that's an
// ErrThrottled.
func (b *Backend) Ensure(ctx context.Context, name string, spec *queue.QueueSpec) (*queue.EnsureReport, error) {
	if spec == nil {
		spec = &queue.QueueSpec{}
	}
	e := ensuring{backend: b, report: &queue.EnsureReport{}, dry: spec.DryRun, update: spec.Update}
	if _, err := e.ensure(ctx, name, spec); err != nil {
		return nil, fmt.Errorf("sqs: ensure %s: %w", name, err)
	}
	return e.report, nil
}

// ensuring is one Ensure.
type ensuring struct {
	backend *Backend
	report  *queue.EnsureReport
	dry     bool
	update  bool
}

// ensure returns the ARN of the queue; none if it's only said that it would be
// created.
func (e *ensuring) ensure(ctx context.Context, name string, spec *queue.QueueSpec) (arn string, err error) {
	b := e.backend
	if err := b.check(); err != nil {
		return "", err
	}
	at, err := b.locate(name, &queue.OpenOptions{Ordered: spec.Ordered})
	if err != nil {
		return "", err
	}
	want, err := wanted(at.name, name, spec)
	if err != nil {
		return "", err
	}
	if spec.DeadLetter != "" {
		deadARN, err := e.ensure(ctx, spec.DeadLetter, remote.DeadLetterSpec(spec))
		if err != nil {
			return "", fmt.Errorf("its dead-letter queue %s: %w", spec.DeadLetter, err)
		}
		if want.policy != nil {
			want.policy.arn = deadARN
		}
	}
	if n := spec.BrokerMaxAttempts; n > maxReceiveCount {
		e.report.Differences = append(e.report.Differences,
			fmt.Sprintf("queue %s: the broker dead-letters after %d attempts, not %d: SQS allows 1 to %d", at.name, maxReceiveCount, n, maxReceiveCount))
	}
	out, err := b.client.GetQueueUrl(ctx, &awssqs.GetQueueUrlInput{QueueName: &at.name})
	switch {
	case err == nil:
		return e.compare(ctx, deref(out.QueueUrl), want)
	case !is[*types.QueueDoesNotExist](err):
		return "", classify(err)
	}
	if e.dry {
		e.created(want)
		return "", nil
	}
	return e.create(ctx, want)
}

func (e *ensuring) created(want *wantedQueue) {
	e.report.Created = append(e.report.Created, "queue "+want.name)
}

func (e *ensuring) create(ctx context.Context, want *wantedQueue) (arn string, err error) {
	client := e.backend.client
	made, err := client.CreateQueue(ctx, &awssqs.CreateQueueInput{QueueName: &want.name, Attributes: want.attributes(), Tags: want.tags})
	switch {
	case is[*types.QueueNameExists](err):
		// Somebody else was faster, and wants something else.
		out, err := client.GetQueueUrl(ctx, &awssqs.GetQueueUrlInput{QueueName: &want.name})
		if err != nil {
			return "", classify(err)
		}
		return e.compare(ctx, deref(out.QueueUrl), want)
	case is[*types.QueueDeletedRecently](err):
		return "", remote.As(queue.ErrThrottled, err)
	case err != nil:
		return "", classify(err)
	}
	e.created(want)
	return e.appear(ctx, deref(made.QueueUrl))
}

// A queue that was created may be unknown to SQS for about a second.
const (
	appearPause = 100 * time.Millisecond
	appearTries = 50
)

// appear waits until a new queue can be used, and returns its ARN.
func (e *ensuring) appear(ctx context.Context, url string) (arn string, err error) {
	for try := 1; ; try++ {
		attrs, err := e.backend.attributes(ctx, url, types.QueueAttributeNameQueueArn)
		if !is[*types.QueueDoesNotExist](err) || try == appearTries {
			return attrs[types.QueueAttributeNameQueueArn], err
		}
		t := time.NewTimer(appearPause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return "", ctx.Err()
		}
	}
}

// attributes reads attributes of a queue.
func (b *Backend) attributes(ctx context.Context, url string, names ...types.QueueAttributeName) (map[types.QueueAttributeName]string, error) {
	out, err := b.client.GetQueueAttributes(ctx, &awssqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: names})
	if err != nil {
		return nil, classify(err)
	}
	attrs := make(map[types.QueueAttributeName]string, len(out.Attributes))
	for k, v := range out.Attributes {
		attrs[types.QueueAttributeName(k)] = v
	}
	return attrs, nil
}

// difference is what a queue has and what it should have.
type difference struct {
	what, have, want string // in words
	apply            func(in *awssqs.SetQueueAttributesInput, tags map[string]string)
}

// compare says how a queue differs from what's wanted, changes it if that was
// asked for, and returns its ARN.
func (e *ensuring) compare(ctx context.Context, url string, want *wantedQueue) (arn string, err error) {
	have, err := e.backend.attributes(ctx, url, types.QueueAttributeNameAll)
	if err != nil {
		return "", err
	}
	var found []difference
	for _, s := range want.settings {
		// Not every server that stands in for SQS tells all of them.
		if got, told := have[s.name]; told && got != s.value {
			found = append(found, difference{s.what, inWords(got), inWords(s.value), setAttribute(s.name, s.value)})
		}
	}
	if p := parsePolicy(have[types.QueueAttributeNameRedrivePolicy]); want.policy != nil && !p.same(want.policy) {
		found = append(found, difference{
			"redrive policy", p.String(), want.policy.String(), setAttribute(types.QueueAttributeNameRedrivePolicy, want.policy.json()),
		})
	}
	if len(want.tags) > 0 {
		out, err := e.backend.client.ListQueueTags(ctx, &awssqs.ListQueueTagsInput{QueueUrl: &url})
		if err != nil {
			return "", classify(err)
		}
		for _, k := range slices.Sorted(maps.Keys(want.tags)) {
			v := want.tags[k]
			if got, has := out.Tags[k]; !has || got != v {
				found = append(found, difference{
					"tag " + k, orNone(has, got), strconv.Quote(v), func(_ *awssqs.SetQueueAttributesInput, tags map[string]string) { tags[k] = v },
				})
			}
		}
	}
	return have[types.QueueAttributeNameQueueArn], e.settle(ctx, url, want.name, found)
}

// settle reports differences, or ends them.
func (e *ensuring) settle(ctx context.Context, url, name string, found []difference) error {
	if !e.update {
		for _, d := range found {
			e.report.Differences = append(e.report.Differences, fmt.Sprintf("queue %s: %s is %s, not %s", name, d.what, d.have, d.want))
		}
		return nil
	}
	attrs := &awssqs.SetQueueAttributesInput{QueueUrl: &url, Attributes: map[string]string{}}
	tags := map[string]string{}
	for _, d := range found {
		d.apply(attrs, tags)
	}
	if !e.dry && len(attrs.Attributes) > 0 {
		if _, err := e.backend.client.SetQueueAttributes(ctx, attrs); err != nil {
			return classify(err)
		}
	}
	if !e.dry && len(tags) > 0 {
		if _, err := e.backend.client.TagQueue(ctx, &awssqs.TagQueueInput{QueueUrl: &url, Tags: tags}); err != nil {
			return classify(err)
		}
	}
	for _, d := range found {
		e.report.Changed = append(e.report.Changed, fmt.Sprintf("queue %s: %s from %s to %s", name, d.what, d.have, d.want))
	}
	return nil
}

func setAttribute(name types.QueueAttributeName, value string) func(*awssqs.SetQueueAttributesInput, map[string]string) {
	return func(in *awssqs.SetQueueAttributesInput, _ map[string]string) { in.Attributes[string(name)] = value }
}

func orNone(has bool, v string) string {
	if !has {
		return "none"
	}
	return strconv.Quote(v)
}

// inWords is a number of seconds as people read it.
func inWords(v string) string {
	if n, err := strconv.Atoi(v); err == nil {
		return (time.Duration(n) * time.Second).String()
	}
	return strconv.Quote(v)
}

// wantedQueue is what a spec means on SQS.
type wantedQueue struct {
	name     string // on SQS
	fifo     bool
	settings []setting
	policy   *policy // nil: none
	tags     map[string]string
}

// setting is an attribute that's compared.
type setting struct {
	what  string // in the words of the library
	name  types.QueueAttributeName
	value string
}

// attributes are what a new queue gets.
func (w *wantedQueue) attributes() map[string]string {
	attrs := map[string]string{}
	for _, s := range w.settings {
		attrs[string(s.name)] = s.value
	}
	if w.fifo {
		attrs[string(types.QueueAttributeNameFifoQueue)] = "true"
	}
	if w.policy != nil {
		attrs[string(types.QueueAttributeNameRedrivePolicy)] = w.policy.json()
	}
	return attrs
}

// wanted checks a spec.
func wanted(sqsName, name string, spec *queue.QueueSpec) (*wantedQueue, error) {
	w := &wantedQueue{name: sqsName, fifo: spec.Ordered, tags: spec.Tags}
	switch {
	case spec.BrokerMaxAttempts < 0:
		return nil, &queue.InvalidError{Field: "BrokerMaxAttempts", Reason: "negative"}
	case spec.DeadLetter == name:
		return nil, &queue.InvalidError{Field: "DeadLetter", Reason: "a queue can't be its own dead-letter queue"}
	case spec.BrokerMaxAttempts > 0 && spec.DeadLetter == "":
		return nil, &queue.InvalidError{Field: "BrokerMaxAttempts", Reason: "needs a DeadLetter queue"}
	case spec.BrokerMaxAttempts > 0:
		w.policy = &policy{name: spec.DeadLetter, receives: min(spec.BrokerMaxAttempts, maxReceiveCount)}
		if spec.Ordered {
			w.policy.name += fifoSuffix
		}
	}
	set := func(what, field string, name types.QueueAttributeName, d, low, high time.Duration) error {
		if d == 0 {
			return nil
		}
		if d < low || d > high {
			return &queue.InvalidError{Field: field, Reason: fmt.Sprintf("%v isn't %v to %v", d, low, high)}
		}
		w.settings = append(w.settings, setting{what, name, strconv.Itoa(int(seconds(d)))})
		return nil
	}
	retention := spec.Retention
	if retention == 0 && spec.IsDeadLetter {
		retention = longestRetention
	}
	if err := set("lease", "Lease", types.QueueAttributeNameVisibilityTimeout, spec.Lease, time.Second, maxVisibility); err != nil {
		return nil, err
	}
	if err := set("retention", "Retention", types.QueueAttributeNameMessageRetentionPeriod, retention, time.Minute, longestRetention); err != nil {
		return nil, err
	}
	return w, nil
}
