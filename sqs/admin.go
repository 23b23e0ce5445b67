package sqs

import (
	"context"
	"fmt"
	"strconv"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/anyqueue/anyqueue/queue"
)

// Ensure creates a queue, and before it its dead-letter queue, unless they
// exist. It may be called at every start of every program: what's there already is
// left as it is, and the report says in words how it differs from what was asked.
// Settings that the spec leaves open are never a difference.
//
// Lease and retention are rounded up to whole seconds. A dead-letter queue keeps
// its messages for 14 days, SQS's longest, and is a FIFO queue if the queue is
// one. QueueSpec.BrokerMaxAttempts becomes the maxReceiveCount of a redrive
// policy, at most 1,000, and needs a dead-letter queue; without it there's no
// policy, as SQS counts receives and not failures. One that exists although
// nobody asked for it is reported, never removed.
//
// A queue that was deleted within the last minute can't be created yet: that's an
// ErrThrottled.
func (b *Backend) Ensure(ctx context.Context, name string, spec *queue.QueueSpec) (*queue.EnsureReport, error) {
	if spec == nil {
		spec = &queue.QueueSpec{}
	}
	e := ensuring{backend: b, report: &queue.EnsureReport{}, dry: spec.DryRun}
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
	if b.err != nil {
		return "", b.err
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
		dead := queue.QueueSpec{Ordered: spec.Ordered, IsDeadLetter: true}
		deadARN, err := e.ensure(ctx, spec.DeadLetter, &dead)
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
	made, err := client.CreateQueue(ctx, &awssqs.CreateQueueInput{QueueName: &want.name, Attributes: want.attributes()})
	switch {
	case is[*types.QueueNameExists](err):
		// Somebody else was faster, and wants something else.
		out, err := client.GetQueueUrl(ctx, &awssqs.GetQueueUrlInput{QueueName: &want.name})
		if err != nil {
			return "", classify(err)
		}
		return e.compare(ctx, deref(out.QueueUrl), want)
	case is[*types.QueueDeletedRecently](err):
		return "", as(queue.ErrThrottled, err)
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

// compare says how a queue differs from what's wanted, and returns its ARN.
func (e *ensuring) compare(ctx context.Context, url string, want *wantedQueue) (arn string, err error) {
	have, err := e.backend.attributes(ctx, url, types.QueueAttributeNameAll)
	if err != nil {
		return "", err
	}
	for _, s := range want.settings {
		// Not every server that stands in for SQS tells all of them.
		if got, told := have[s.name]; told && got != s.value {
			e.differs("queue %s: %s is %s, not %s", want.name, s.what, inWords(got), inWords(s.value))
		}
	}
	e.comparePolicy(have[types.QueueAttributeNameRedrivePolicy], want)
	return have[types.QueueAttributeNameQueueArn], nil
}

func (e *ensuring) comparePolicy(told string, want *wantedQueue) {
	have := parsePolicy(told)
	switch {
	case have == nil && want.policy == nil:
	case have == nil:
		e.differs("queue %s: SQS itself dead-letters nothing; asked for is %s", want.name, want.policy)
	case want.policy == nil:
		e.differs("queue %s: SQS itself dead-letters %s; that wasn't asked for", want.name, have)
	case !have.same(want.policy):
		e.differs("queue %s: SQS itself dead-letters %s, not %s", want.name, have, want.policy)
	}
}

func (e *ensuring) differs(format string, args ...any) {
	e.report.Differences = append(e.report.Differences, fmt.Sprintf(format, args...))
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
	w := &wantedQueue{name: sqsName, fifo: spec.Ordered}
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
