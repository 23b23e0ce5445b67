package pubsub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	gcp "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

// Ensure creates a topic and its subscription, a return topic with a subscription
// for what only this queue's consumers shall get (long waits, redrive), and before
// them topic and subscription of the dead-letter queue, unless they exist. It may be
// called at every start of every program: what's there already is left as it is, and
// the report says in words how it differs from what was asked. With
// QueueSpec.Update it's changed instead; the order of a subscription can't be.
//
// A subscription that exists and belongs to another topic, as each but the first of a
// topic's subscriptions does, gets only its return topic and subscription, for long waits
// and redrive; the report says by which address it's opened.
//
// A subscription doesn't expire, has no filter and no retry policy: another one differs.
// The return subscription has exactly-once delivery if the main one has. A dead-letter queue keeps its messages for 31 days,
// Pub/Sub's longest, unless QueueSpec.DeadLetterSpec says otherwise, is ordered if the
// queue is, and has no return topic.
// QueueSpec.BrokerMaxAttempts becomes the max_delivery_attempts of a dead-letter
// policy, 5 to 100, and needs a dead-letter queue. For that policy Pub/Sub's own
// service account must be allowed to publish to the dead-letter topic and to
// subscribe to both subscriptions, or messages are delivered again without end:
// what isn't granted on these resources is said in the report's Warnings, with the
// command that grants it. QueueSpec.Tags become labels. A lease below 10 s, which no
// subscription can have, is left to Open.
func (b *Backend) Ensure(ctx context.Context, name string, spec *queue.QueueSpec) (*queue.EnsureReport, error) {
	if spec == nil {
		spec = &queue.QueueSpec{}
	}
	r, err := b.ensure(ctx, name, spec)
	if err != nil {
		return nil, fmt.Errorf("pubsub: ensure %s: %w", name, err)
	}
	return r, nil
}

func (b *Backend) ensure(ctx context.Context, name string, spec *queue.QueueSpec) (r *queue.EnsureReport, err error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	client, done, err := b.clients.use(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	e := ensuring{
		backend: b, client: client, project: b.project(client), report: &queue.EnsureReport{}, dry: spec.DryRun, update: spec.Update,
	}
	return e.report, e.queue(ctx, name, spec)
}

// ensuring is one Ensure.
type ensuring struct {
	backend *Backend
	client  *gcp.Client
	project string
	report  *queue.EnsureReport
	dry     bool
	update  bool
}

func (e *ensuring) queue(ctx context.Context, name string, spec *queue.QueueSpec) error {
	if err := queue.CheckName(name); err != nil {
		return err
	}
	want, err := e.wanted(name, spec)
	if err != nil {
		return err
	}
	if spec.DeadLetter != "" {
		if err := e.queue(ctx, spec.DeadLetter, remote.DeadLetterSpec(spec)); err != nil {
			return fmt.Errorf("its dead-letter queue %s: %w", spec.DeadLetter, err)
		}
	}
	back := *want
	back.name, back.topic = want.name+returnSuffix, topicOf(want.name)+returnSuffix
	have, err := e.main(ctx, want, spec.Tags)
	if err != nil {
		return err
	}
	subs := []*wantedSubscription{want}
	if !spec.IsDeadLetter {
		back.like(have)
		if err := e.topic(ctx, back.topic, spec.Tags); err != nil {
			return err
		}
		if _, err := e.subscription(ctx, &back); err != nil {
			return err
		}
		subs = append(subs, &back)
	}
	if want.deadTopic != "" {
		return e.grants(ctx, want.deadTopic, subs)
	}
	return nil
}

// main ensures the subscription itself, and its topic, and returns what there is. One
// that belongs to another topic, as a topic's second subscription does, needs none of
// its own name: nobody would ever publish to that.
func (e *ensuring) main(ctx context.Context, w *wantedSubscription, labels map[string]string) (*pubsubpb.Subscription, error) {
	var a asking
	have, err := e.client.SubscriptionAdminClient.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{Subscription: w.name}, a.option())
	switch {
	case err != nil && !missing(err):
		return nil, a.failed(ctx, err)
	case err == nil && have.GetTopic() != w.topic && have.GetTopic() != deletedTopic:
		e.differs("%s: the topic is %s, not %s, so that it's opened by its address: %s", w.name, have.GetTopic(), w.topic, w.name)
		w.topic = have.GetTopic()
		return have, e.compare(ctx, have, w)
	}
	if err := e.topic(ctx, w.topic, labels); err != nil {
		return nil, err
	}
	return e.subscription(ctx, w)
}

// wantedSubscription is what a spec means on Pub/Sub; zero values aren't compared.
type wantedSubscription struct {
	name, topic string // full names
	ordered     bool
	ackDeadline time.Duration
	retention   time.Duration
	longest     bool // the retention is the longest there is
	deadTopic   string
	attempts    int32
	labels      map[string]string
	exactlyOnce bool
}

// like takes from the main subscription, as it is, what the spec leaves open: what's
// redriven or waits for long is to be treated as what comes directly. Settling is only
// confirmed if it is for both.
func (w *wantedSubscription) like(main *pubsubpb.Subscription) {
	if main == nil {
		return // a dry run, in which it would be made by the same spec
	}
	w.exactlyOnce, w.ordered = main.GetEnableExactlyOnceDelivery(), w.ordered || main.GetEnableMessageOrdering()
	if w.ackDeadline == 0 {
		w.ackDeadline = time.Duration(main.GetAckDeadlineSeconds()) * time.Second
	}
	if w.retention == 0 {
		w.retention = main.GetMessageRetentionDuration().AsDuration()
	}
	if p := main.GetDeadLetterPolicy(); w.deadTopic == "" && p.GetDeadLetterTopic() != "" {
		w.deadTopic, w.attempts = p.GetDeadLetterTopic(), p.GetMaxDeliveryAttempts()
	}
}

const (
	minAttempts, maxAttempts = 5, 100
	minRetention             = 10 * time.Minute
)

// wanted checks a spec.
func (e *ensuring) wanted(name string, spec *queue.QueueSpec) (*wantedSubscription, error) {
	w := &wantedSubscription{
		name: fullName(e.project, subscriptionKind, name), topic: fullName(e.project, topicKind, name), ordered: spec.Ordered, labels: spec.Tags,
	}
	switch {
	case spec.BrokerMaxAttempts < 0:
		return nil, &queue.InvalidError{Field: "BrokerMaxAttempts", Reason: "negative"}
	case spec.DeadLetter == name:
		return nil, &queue.InvalidError{Field: "DeadLetter", Reason: "a queue can't be its own dead-letter queue"}
	case spec.BrokerMaxAttempts > 0 && spec.DeadLetter == "":
		return nil, &queue.InvalidError{Field: "BrokerMaxAttempts", Reason: "needs a DeadLetter queue"}
	case spec.BrokerMaxAttempts > 0:
		n := min(max(spec.BrokerMaxAttempts, minAttempts), maxAttempts)
		if n != spec.BrokerMaxAttempts {
			e.differs("queue %s: the broker dead-letters after %d attempts, not %d: Pub/Sub allows %d to %d", name, n, spec.BrokerMaxAttempts, minAttempts, maxAttempts)
		}
		w.deadTopic, w.attempts = fullName(e.project, topicKind, spec.DeadLetter), int32(n) //nolint:gosec // at most 100
	}
	if spec.Lease < 0 || spec.Lease > maxAckDeadline {
		return nil, &queue.InvalidError{Field: "Lease", Reason: fmt.Sprintf("%v isn't up to %v", spec.Lease, maxAckDeadline)}
	}
	if spec.Lease > 0 {
		w.ackDeadline = time.Duration(seconds(max(spec.Lease, defaultAckDeadline))) * time.Second
	}
	switch w.retention = spec.Retention; {
	case w.retention == 0 && spec.IsDeadLetter:
		w.retention, w.longest = e.backend.longestRetention(), true
	case w.retention != 0 && (w.retention < minRetention || w.retention > longestRetention):
		return nil, &queue.InvalidError{Field: "Retention", Reason: fmt.Sprintf("%v isn't %v to %v", w.retention, minRetention, longestRetention)}
	}
	return w, nil
}

func (e *ensuring) differs(format string, args ...any) {
	e.report.Differences = append(e.report.Differences, fmt.Sprintf(format, args...))
}

func (e *ensuring) created(name string) { e.report.Created = append(e.report.Created, name) }

func (e *ensuring) topic(ctx context.Context, name string, labels map[string]string) error {
	var a asking
	have, err := e.client.TopicAdminClient.GetTopic(ctx, &pubsubpb.GetTopicRequest{Topic: name}, a.option())
	switch {
	case err == nil:
		return e.compareTopic(ctx, have, labels)
	case !missing(err):
		return a.failed(ctx, err)
	}
	if !e.dry {
		_, err := e.client.TopicAdminClient.CreateTopic(ctx, &pubsubpb.Topic{Name: name, Labels: labels})
		if status.Code(err) == codes.AlreadyExists {
			return nil // somebody else was faster, with the same in mind
		}
		if err != nil {
			return classifyOpen(ctx, err)
		}
	}
	e.created(name)
	return nil
}

// subscription ensures one, and returns what there is: nil in a dry run that would make it.
func (e *ensuring) subscription(ctx context.Context, w *wantedSubscription) (*pubsubpb.Subscription, error) {
	admin := e.client.SubscriptionAdminClient
	get := &pubsubpb.GetSubscriptionRequest{Subscription: w.name}
	have, err := admin.GetSubscription(ctx, get)
	if missing(err) && !e.dry {
		done, cut := e.backend.alone(ctx, w.name)
		if cut != nil {
			return nil, cut
		}
		defer done()
		have, err = admin.GetSubscription(ctx, get) // somebody may have been faster
	}
	switch {
	case err == nil:
		return have, e.compare(ctx, have, w)
	case !missing(err):
		return nil, classifyOpen(ctx, err)
	case e.dry:
		e.created(w.name)
		return nil, nil
	}
	made := w.message()
	_, err = admin.CreateSubscription(ctx, made)
	if status.Code(err) == codes.InvalidArgument && w.longest && w.retention > defaultRetention {
		// A service whose longest is what used to be Google's, such as its emulator.
		made.MessageRetentionDuration = durationpb.New(defaultRetention)
		if _, err = admin.CreateSubscription(ctx, made); err == nil {
			e.backend.shortRetention.Store(true)
			e.differs("%s: the retention is %v, as %v was refused", w.name, defaultRetention, w.retention)
		}
	}
	if status.Code(err) == codes.AlreadyExists { // somebody else was faster, and may want something else
		if have, err = admin.GetSubscription(ctx, get); err != nil {
			return nil, classifyOpen(ctx, err)
		}
		return have, e.compare(ctx, have, w)
	}
	if err != nil {
		return nil, classifyOpen(ctx, err)
	}
	e.created(w.name)
	return made, nil
}

// alone lets one caller at a time make a subscription, until done is called. Two
// that do it at once both succeed on Google's emulator, and the later subscription
// takes the place of the other one and of what was published to it meanwhile.
// Google's service has the later one fail.
func (b *Backend) alone(ctx context.Context, name string) (done func(), err error) {
	l, _ := b.making.LoadOrStore(name, make(chan struct{}, 1))
	lock := l.(chan struct{})
	select {
	case lock <- struct{}{}:
		return func() { <-lock }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// longestRetention is the longest that this service is known to allow.
func (b *Backend) longestRetention() time.Duration {
	if b.shortRetention.Load() {
		return defaultRetention
	}
	return longestRetention
}

// message is the subscription that's made.
func (w *wantedSubscription) message() *pubsubpb.Subscription {
	s := &pubsubpb.Subscription{
		Name: w.name, Topic: w.topic, EnableMessageOrdering: w.ordered, Labels: maps.Clone(w.labels),
		ExpirationPolicy: &pubsubpb.ExpirationPolicy{}, // without a ttl: never
		DeadLetterPolicy: w.policy(), EnableExactlyOnceDelivery: w.exactlyOnce,
	}
	if w.ackDeadline > 0 {
		s.AckDeadlineSeconds = seconds(w.ackDeadline)
	}
	if w.retention > 0 {
		s.MessageRetentionDuration = durationpb.New(w.retention)
	}
	return s
}

func (w *wantedSubscription) policy() *pubsubpb.DeadLetterPolicy {
	if w.deadTopic == "" {
		return nil
	}
	return &pubsubpb.DeadLetterPolicy{DeadLetterTopic: w.deadTopic, MaxDeliveryAttempts: w.attempts}
}
