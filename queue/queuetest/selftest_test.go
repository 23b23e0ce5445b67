package queuetest_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/queuetest"
)

// The suite runs on backends that are broken on purpose, each in a process of
// its own, and must find what's wrong with them by the tests named here.

// brokenBy names the broken backend that TestSuiteOn runs on in such a process.
const brokenBy = "QUEUETEST_BROKEN_BY"

// A flaw is a backend that breaks a promise.
type flaw struct {
	wrap    func(queue.Queue) queue.Queue
	options memory.Options
	harness func(*queuetest.Harness)
	fails   []string // tests that must fail
	passes  []string // tests that must not: the flaw is none of their business
	says    string   // what the output must contain
}

// flawed changes what some calls of a queue do.
type flawed struct {
	queue.Queue
	publish      func(ctx context.Context, q queue.Queue, msgs []*queue.Message) error
	receive      func(ctx context.Context, q queue.Queue, most int) ([]*queue.Delivery, error)
	settle       func(ctx context.Context, q queue.Queue, s []queue.Settlement) error
	extend       func(ctx context.Context, q queue.Queue, d time.Duration, ds []*queue.Delivery) ([]time.Time, error)
	capabilities func(queue.Capabilities) queue.Capabilities
	closes       func() error
}

func (f *flawed) Unwrap() queue.Queue { return f.Queue }

func (f *flawed) Publish(ctx context.Context, msgs ...*queue.Message) error {
	if f.publish != nil {
		return f.publish(ctx, f.Queue, msgs)
	}
	return f.Queue.Publish(ctx, msgs...)
}

func (f *flawed) Receive(ctx context.Context, most int) ([]*queue.Delivery, error) {
	if f.receive != nil {
		return f.receive(ctx, f.Queue, most)
	}
	return f.Queue.Receive(ctx, most)
}

func (f *flawed) Settle(ctx context.Context, s ...queue.Settlement) error {
	if f.settle != nil {
		return f.settle(ctx, f.Queue, s)
	}
	return f.Queue.Settle(ctx, s...)
}

func (f *flawed) Extend(ctx context.Context, d time.Duration, ds ...*queue.Delivery) ([]time.Time, error) {
	if f.extend != nil {
		return f.extend(ctx, f.Queue, d, ds)
	}
	return f.Queue.Extend(ctx, d, ds...)
}

func (f *flawed) Capabilities() queue.Capabilities {
	if f.capabilities != nil {
		return f.capabilities(f.Queue.Capabilities())
	}
	return f.Queue.Capabilities()
}

func (f *flawed) Close(ctx context.Context) error {
	if f.closes != nil {
		return f.closes()
	}
	return f.Queue.Close(ctx)
}

// each makes a Publish that changes messages, nil leaving one out in silence.
func each(change func(queue.Message) *queue.Message) func(context.Context, queue.Queue, []*queue.Message) error {
	return func(ctx context.Context, q queue.Queue, msgs []*queue.Message) error {
		errs := make([]error, len(msgs))
		for i, m := range msgs {
			if m == nil {
				errs[i] = &queue.InvalidError{Field: "message", Reason: "nil"}
			} else if m = change(*m); m != nil {
				errs[i] = queue.PublishErrors(q.Publish(ctx, m), 1)[0]
			}
		}
		return queue.NewPublishError(errs)
	}
}

// settling makes a Settle that changes settlements.
func settling(change func(*queue.Settlement)) func(context.Context, queue.Queue, []queue.Settlement) error {
	return func(ctx context.Context, q queue.Queue, s []queue.Settlement) error {
		s = slices.Clone(s)
		for i := range s {
			change(&s[i])
		}
		return q.Settle(ctx, s...)
	}
}

func with(f flawed) func(queue.Queue) queue.Queue {
	return func(q queue.Queue) queue.Queue {
		f := f
		f.Queue = q
		return &f
	}
}

func flaws() map[string]flaw {
	return map[string]flaw{
		"a release loses the message": {
			wrap:   with(flawed{settle: settling(func(s *queue.Settlement) { s.Kind = queue.Ack })}),
			fails:  []string{"Outcomes/AnErrorComesBackAfterTheBackoff", "Subscriber/ReleaseBringsItBackAtOnce", "Drain/WhatWasNotStartedIsGivenBackAtOnce"},
			passes: []string{"Outcomes/NilIsAcknowledged"},
		},
		"a release comes back at once": {
			wrap:   with(flawed{settle: settling(func(s *queue.Settlement) { s.Delay = 0 })}),
			fails:  []string{"Outcomes/RetryAfterDecidesTheDelay", "Outcomes/AnErrorComesBackAfterTheBackoff", "Subscriber/ReleaseWithADelayIsNeverEarly"},
			passes: []string{"Outcomes/NilIsAcknowledged", "Subscriber/ReleaseBringsItBackAtOnce", "Delay/ADelayIsKept"},
		},
		"an ack does nothing": {
			wrap: with(flawed{settle: func(ctx context.Context, q queue.Queue, s []queue.Settlement) error {
				return q.Settle(ctx, slices.DeleteFunc(slices.Clone(s), func(s queue.Settlement) bool { return s.Kind == queue.Ack })...)
			}}),
			fails:  []string{"Outcomes/NilIsAcknowledged", "Outcomes/DropRemoves", "Subscriber/AckRemoves"},
			passes: []string{"Subscriber/ReleaseWithADelayIsNeverEarly"},
		},
		"delays are ignored": {
			wrap:   with(flawed{publish: each(func(m queue.Message) *queue.Message { m.Delay, m.DeliverAt = 0, time.Time{}; return &m })}),
			fails:  []string{"Delay/ADelayIsKept", "Delay/DeliverAtIsKept", "Delay/ALongDelayIsKept", "Delay/ADelayWithAnOrderingKeyIsRefused", "Delay/DelayAndDeliverAtTogetherAreRefused"},
			passes: []string{"Delay/DeliverAtInThePastIsAtOnce"},
		},
		"attributes are lost": {
			wrap:   with(flawed{publish: each(func(m queue.Message) *queue.Message { m.Attributes = nil; return &m })}),
			fails:  []string{"Publish/AMessageArrivesAsItWasSent", "Publish/AnyAttributeValueArrives", "Publish/AReservedAttributeIsRefused"},
			passes: []string{"Outcomes/NilIsAcknowledged"},
		},
		"surplus attributes are dropped": {
			wrap: with(flawed{publish: each(func(m queue.Message) *queue.Message {
				m.Attributes = maps.Clone(m.Attributes)
				for _, k := range slices.Sorted(maps.Keys(m.Attributes)) {
					if len(m.Attributes) > 9 {
						delete(m.Attributes, k)
					}
				}
				return &m
			})}),
			fails:  []string{"Limits/AsManyAttributesAsAllowedArriveAndOneMoreIsRefused", "Limits/AnIDWithAllTheAttributesArrivesOrIsRefused"},
			passes: []string{"Publish/AMessageArrivesAsItWasSent"},
		},
		"bodies are made valid text": {
			wrap:   with(flawed{publish: each(func(m queue.Message) *queue.Message { m.Body = bytes.ToValidUTF8(m.Body, []byte("\uFFFD")); return &m })}),
			fails:  []string{"Publish/AnyBodyArrives"},
			passes: []string{"Publish/AMessageArrivesAsItWasSent"},
		},
		"ordering keys are dropped": {
			wrap:   with(flawed{publish: each(func(m queue.Message) *queue.Message { m.OrderingKey = ""; return &m })}),
			fails:  []string{"Order/OneKeyIsHandledInOrderOneAtATime", "Order/TheKeyArrives", "Order/AnOrderingKeyIsRefusedWithoutOrder"},
			passes: []string{"Order/MessagesWithoutAKeyAreIndependent"},
		},
		"there is no order, it says": {
			wrap:  with(flawed{capabilities: func(c queue.Capabilities) queue.Capabilities { c.Ordering = false; return c }}),
			fails: []string{"Order/OneKeyIsHandledInOrderOneAtATime", "Order/TheKeyArrives"},
		},
		"failed messages are not named": {
			wrap: with(flawed{publish: func(ctx context.Context, q queue.Queue, msgs []*queue.Message) error {
				var pe *queue.PublishError
				if err := q.Publish(ctx, msgs...); err != nil && (!errors.As(err, &pe) || len(pe.Failed) == len(msgs)) {
					return err
				}
				return nil
			}}),
			fails:  []string{"Publish/OneBadMessageDoesNotStopTheOthers", "Publish/ANilMessageIsRefused"},
			passes: []string{"Publish/AReservedAttributeIsRefused"},
		},
		"one bad message fails all": {
			wrap: with(flawed{publish: func(ctx context.Context, q queue.Queue, msgs []*queue.Message) error {
				caps := q.Capabilities()
				for _, m := range msgs {
					if _, err := caps.Prepare(m, time.Now()); err != nil {
						return err
					}
				}
				return q.Publish(ctx, msgs...)
			}}),
			fails:  []string{"Publish/OneBadMessageDoesNotStopTheOthers", "Limits/AnOversizeMessageDoesNotStopTheOthers"},
			passes: []string{"Publish/AReservedAttributeIsRefused", "Publish/ManyMessagesInOneCallAllArrive"},
		},
		"leases are not extended": {
			wrap: with(flawed{extend: func(_ context.Context, _ queue.Queue, d time.Duration, ds []*queue.Delivery) ([]time.Time, error) {
				return slices.Repeat([]time.Time{time.Now().Add(d)}, len(ds)), nil
			}}),
			fails:  []string{"Lease/ASlowHandlerRunsOnce", "Subscriber/ExtendKeepsTheLeaseAsLongAsItSays"},
			passes: []string{"Outcomes/NilIsAcknowledged"},
		},
		"repeated IDs are dropped": {
			wrap:   dropsRepeatedIDs,
			fails:  []string{"Dedup/OnlyTheDedupIDDeduplicates", "DeadLetter/ALostAnswerToTheCopyLosesNothing"},
			passes: []string{"Publish/AMessageArrivesAsItWasSent"},
		},
		"redeliveries share the body": {
			wrap:   sharesBodies,
			fails:  []string{"Publish/WhatAHandlerChangesIsNotRedelivered"},
			passes: []string{"Outcomes/AnErrorComesBackAfterTheBackoff"},
		},
		"metadata is lost": {
			wrap: with(flawed{publish: each(func(m queue.Message) *queue.Message {
				return &queue.Message{ID: m.ID, Body: m.Body, Attributes: m.Attributes, Delay: m.Delay, DeliverAt: m.DeliverAt, OrderingKey: m.OrderingKey, DedupID: m.DedupID, Options: m.Options}
			})}),
			fails:  []string{"DeadLetter/TheCopyHasItsHistory", "Outcomes/RejectGoesToTheDeadLetterQueueAtOnce"},
			passes: []string{"Publish/AMessageArrivesAsItWasSent", "Delay/ADelayIsKept"},
		},
		"receives bring more than asked for": {
			wrap: with(flawed{receive: func(ctx context.Context, q queue.Queue, most int) ([]*queue.Delivery, error) {
				return q.Receive(ctx, most+9)
			}}),
			fails:  []string{"Subscriber/ReceiveReturnsAtMostWhatWasAskedFor", "Concurrency/OnlyWhatCanStartIsFetched"},
			passes: []string{"Concurrency/NeverMoreHandlersThanTheLimit"},
		},
		"close does nothing": {
			wrap:   with(flawed{closes: func() error { return nil }}),
			fails:  []string{"Publish/AClosedQueueSaysSo", "Faults/AQueueThatIsClosedBeneathItsConsumerEndsRun"},
			passes: []string{"Outcomes/NilIsAcknowledged"},
		},
		"missing queues are created": {
			options: memory.Options{Create: true},
			fails:   []string{"Publish/AMissingQueueIsNotFound", "Admin/EnsureDryRunChangesNothing"},
			passes:  []string{"Outcomes/NilIsAcknowledged"},
		},
		"messages come twice": {
			options: memory.Options{Duplicate: 0.5, Seed: 1},
			fails:   []string{"Concurrency/TwoConsumersShareAQueue"},
		},
		"one release in twenty loses the message": {
			wrap:  losesSome,
			fails: []string{"Soak/NothingIsLostInAStorm"},
			says:  "lost, neither handled nor dead-lettered",
		},
		"it skips": {
			harness: func(h *queuetest.Harness) {
				inner := h.New
				h.New = func(t testing.TB) queuetest.Instance {
					t.Skip("no server")
					return inner(t)
				}
			},
			fails: []string{"Outcomes/NilIsAcknowledged"},
			says:  "isn't in the table of allowed skips",
		},
		"the harness cannot publish as a foreign program": {
			harness: func(h *queuetest.Harness) {
				inner := h.New
				h.New = func(t testing.TB) queuetest.Instance {
					in := inner(t)
					in.PublishRaw = nil
					return in
				}
			},
			fails:  []string{"Publish/ForeignMessagesAreConsumed"},
			passes: []string{"Publish/AnyBodyArrives"},
		},
		"a goroutine is left, on virtual time": {
			wrap: leaks,
			says: "blocked goroutines remain",
		},
		"a goroutine is left, on real time": {
			wrap:    leaks,
			harness: func(h *queuetest.Harness) { h.Virtual = false },
			fails:   []string{"NoGoroutineIsLeft"},
			passes:  []string{"Publish/PublishingNothingIsNil"},
		},
	}
}

func dropsRepeatedIDs(q queue.Queue) queue.Queue {
	var mu sync.Mutex
	seen := map[string]bool{}
	return with(flawed{publish: each(func(m queue.Message) *queue.Message {
		mu.Lock()
		defer mu.Unlock()
		if m.ID != "" && seen[m.ID] {
			return nil
		}
		seen[m.ID] = true
		return &m
	})})(q)
}

func losesSome(q queue.Queue) queue.Queue {
	var n atomic.Int32
	return with(flawed{settle: settling(func(s *queue.Settlement) {
		if s.Kind == queue.Release && n.Add(1)%20 == 0 {
			s.Kind = queue.Ack
		}
	})})(q)
}

func sharesBodies(q queue.Queue) queue.Queue {
	var mu sync.Mutex
	kept := map[string][]byte{}
	return with(flawed{receive: func(ctx context.Context, q queue.Queue, most int) ([]*queue.Delivery, error) {
		ds, err := q.Receive(ctx, most)
		mu.Lock()
		defer mu.Unlock()
		for _, d := range ds {
			if b, ok := kept[d.BrokerID]; ok {
				d.Body = b
			}
			kept[d.BrokerID] = d.Body
		}
		return ds, err
	}})(q)
}

func leaks(q queue.Queue) queue.Queue {
	go func() { <-make(chan struct{}) }()
	return q
}

// backend opens the queues of a broker with a flaw.
type backend struct {
	*memory.Broker
	wrap func(queue.Queue) queue.Queue
}

func (b backend) Open(ctx context.Context, name string, opts *queue.OpenOptions) (queue.Queue, error) {
	q, err := b.Broker.Open(ctx, name, opts)
	if err != nil || b.wrap == nil {
		return q, err
	}
	return b.wrap(q), nil
}

func harness(f flaw) queuetest.Harness {
	h := queuetest.Harness{
		Name:    "memory",
		Virtual: true,
		New: func(testing.TB) queuetest.Instance {
			o := f.options
			return queuetest.Instance{
				Backend: backend{memory.New(&o), f.wrap},
				PublishRaw: func(ctx context.Context, q queue.Queue, body []byte, attrs map[string]string) error {
					return q.Publish(ctx, &queue.Message{Body: body, Attributes: attrs})
				},
			}
		},
	}
	if f.harness != nil {
		f.harness(&h)
	}
	return h
}

// TestSuiteOn runs the core of the suite on a backend without a flaw; in the
// processes of TestTheSuiteHasTeeth all of it, on one with the flaw that's named.
func TestSuiteOn(t *testing.T) {
	name := os.Getenv(brokenBy)
	if name == "" {
		h := harness(flaw{})
		h.Core = true
		queuetest.Run(t, h)
		return
	}
	f, ok := flaws()[name]
	if !ok {
		t.Fatalf("no flaw %q", name)
	}
	queuetest.Run(t, harness(f))
}

func TestTheSuiteHasTeeth(t *testing.T) {
	t.Parallel()
	for name, f := range flaws() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := runOn(t, name, append(slices.Clone(f.fails), f.passes...))
			for _, want := range f.fails {
				if !regexp.MustCompile(`(?m)^\s*--- FAIL: TestSuiteOn/(Rules/)?` + want + ` `).MatchString(out) {
					t.Errorf("%s didn't fail", want)
				}
			}
			for _, want := range f.passes {
				if !regexp.MustCompile(`(?m)^\s*--- PASS: TestSuiteOn/Rules/` + want + ` `).MatchString(out) {
					t.Errorf("%s didn't pass", want)
				}
			}
			if !strings.Contains(out, f.says) {
				t.Errorf("the output doesn't say %q", f.says)
			}
			if len(f.fails) > 0 && f.says == "" && f.fails[0] != "NoGoroutineIsLeft" && !strings.Contains(out, "why: ") {
				t.Error("the output doesn't say why a rule exists")
			}
			if t.Failed() {
				t.Logf("the output was:\n%s", out)
			}
		})
	}
}

// runOn runs some tests of the suite on a backend with a flaw, in a process of
// its own, and returns the output. The process must fail.
func runOn(t *testing.T, flaw string, tests []string) string {
	t.Helper()
	run := "^TestSuiteOn$"
	if len(tests) > 0 {
		var themes, rules []string
		for _, name := range tests {
			if theme, rule, ok := strings.Cut(name, "/"); ok {
				themes, rules = append(themes, theme), append(rules, rule)
			}
		}
		run += "/^(Rules|NoGoroutineIsLeft)$/^(" + strings.Join(themes, "|") + ")$/^(" + strings.Join(rules, "|") + ")$"
	} else {
		run += "/^Rules$/^Publish$/^PublishingNothingIsNil$"
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run="+run, "-test.v", "-test.timeout=100s")
	cmd.Env = append(os.Environ(), brokenBy+"="+flaw)
	out, err := cmd.CombinedOutput()
	if _, failed := errors.AsType[*exec.ExitError](err); !failed {
		t.Fatalf("the suite on this backend ended with %v:\n%s", err, out)
	}
	return string(out)
}
