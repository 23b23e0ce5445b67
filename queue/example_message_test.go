package queue_test

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

type Lead struct {
	Email string `json:"email"`
	Score int    `json:"score"`
}

// open returns a queue of a new broker in memory.
func open(name string) queue.Queue {
	q, err := memory.New(&memory.Options{Create: true}).Open(context.Background(), name, nil)
	if err != nil {
		panic(err)
	}
	return q
}

// consume runs a consumer until n deliveries have been handled.
func consume(q queue.Queue, n int, h queue.Handler) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	left := make(chan struct{}, n)
	c, err := queue.NewConsumer(q, func(ctx context.Context, d *queue.Delivery) error {
		defer func() { left <- struct{}{} }()
		return h(ctx, d)
	}, &queue.ConsumerOptions{Logger: slog.New(slog.DiscardHandler), ReceiveGrace: -1})
	if err != nil {
		panic(err)
	}
	go func() {
		for range n {
			<-left
		}
		cancel()
	}()
	if err := c.Run(ctx); err != nil {
		panic(err)
	}
}

func ExampleJSON() {
	q := open("crm-leads")
	ctx := context.Background()
	if err := queue.PublishJSON(ctx, q, Lead{"ada@example.com", 7}, queue.WithID("lead-1"), queue.WithAttribute("source", "form")); err != nil {
		fmt.Println(err)
	}
	consume(q, 1, queue.JSON(func(_ context.Context, l Lead, d *queue.Delivery) error {
		fmt.Println(l.Email, l.Score, d.ID, d.Attributes["source"])
		return nil
	}))
	// Output: ada@example.com 7 lead-1 form
}

func ExamplePublishJSON() {
	q := open("crm-leads")
	err := queue.PublishJSON(context.Background(), q, Lead{"ada@example.com", 7},
		queue.WithDelay(time.Minute), queue.WithDeliverAt(time.Now().Add(time.Hour)))
	fmt.Println(errors.Is(err, queue.ErrInvalid))
	fmt.Println(err)
	// Output:
	// true
	// memory: publish to crm-leads: queue: invalid Delay: Delay and DeliverAt exclude each other
}

func ExampleDecode() {
	h := queue.Decode(xml.Unmarshal, func(_ context.Context, l Lead, _ *queue.Delivery) error {
		fmt.Println(l.Email)
		return nil
	})
	ctx := context.Background()
	fmt.Println(h(ctx, &queue.Delivery{Message: queue.Message{Body: []byte("<Lead><Email>ada@example.com</Email></Lead>")}}))

	err := h(ctx, &queue.Delivery{Message: queue.Message{Body: []byte("not XML")}})
	fmt.Println(queue.OutcomeOf(err).Kind, "as", err)
	// Output:
	// ada@example.com
	// <nil>
	// rejected as queue: decode queue_test.Lead: EOF
}

func ExampleEncode() {
	q := open("crm-leads")
	if err := queue.Encode(context.Background(), q, xml.Marshal, Lead{"ada@example.com", 7}); err != nil {
		fmt.Println(err)
	}
	consume(q, 1, func(_ context.Context, d *queue.Delivery) error {
		fmt.Printf("%s\n", d.Body)
		return nil
	})
	// Output: <Lead><Email>ada@example.com</Email><Score>7</Score></Lead>
}

// What a handler returns says what becomes of its delivery.
func ExampleOutcomeOf() {
	busy := errors.New("the CRM answers 503")
	for _, err := range []error{
		nil,
		busy,
		queue.RetryAfter(30*time.Second, busy),
		fmt.Errorf("update lead: %w", queue.Reject(errors.New("no such field"))),
		queue.Drop(errors.New("unsubscribed meanwhile")),
		queue.Snooze(time.Hour),
	} {
		o := queue.OutcomeOf(err)
		fmt.Println(o.Kind, o.Delay)
	}
	// Output:
	// success 0s
	// failed 0s
	// retry 30s
	// rejected 0s
	// dropped 0s
	// snoozed 1h0m0s
}

// Rows are inserted together, and one that's bad fails alone.
func ExampleBatch() {
	q := open("rows")
	ctx := context.Background()
	for _, row := range []string{"one", "two", "bad", "three"} {
		if err := q.Publish(ctx, &queue.Message{Body: []byte(row)}); err != nil {
			fmt.Println(err)
		}
	}
	consume(q, 4, queue.Batch(4, time.Second, func(_ context.Context, ds []*queue.Delivery) []error {
		results := make([]error, len(ds))
		for i, d := range ds {
			if string(d.Body) == "bad" {
				results[i] = queue.Reject(errors.New("not a row"))
			}
		}
		fmt.Println("inserted", len(ds)-1, "of", len(ds), "rows in one statement")
		return results
	}))
	// Output: inserted 3 of 4 rows in one statement
}

// What middleware has found out about each delivery is in the context of each.
func ExampleBatchContexts() {
	type tenant struct{}
	tenants := queue.MiddlewareFunc(func(next queue.Handler) queue.Handler {
		return func(ctx context.Context, d *queue.Delivery) error {
			return next(context.WithValue(ctx, tenant{}, d.Attributes["tenant"]), d)
		}
	})
	q := open("rows")
	for _, name := range []string{"acme", "globex"} {
		m := &queue.Message{Body: []byte("row"), Attributes: map[string]string{"tenant": name}}
		if err := q.Publish(context.Background(), m); err != nil {
			fmt.Println(err)
		}
	}
	consume(q, 2, queue.Chain(queue.Batch(2, time.Second, func(ctx context.Context, ds []*queue.Delivery) []error {
		of := map[any]int{}
		for _, c := range queue.BatchContexts(ctx) {
			of[c.Value(tenant{})]++
		}
		fmt.Println(of)
		return make([]error, len(ds))
	}), tenants))
	// Output: map[acme:1 globex:1]
}

// After the fix of a bug, what it broke goes back to where it came from.
func ExampleRedrive() {
	ctx := context.Background()
	broker := memory.New(&memory.Options{Create: true})
	orders, err := broker.Open(ctx, "orders", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	dead, err := broker.Open(ctx, "orders-dlq", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, id := range []string{"o-1", "o-2"} {
		if err := orders.Publish(ctx, &queue.Message{ID: id}); err != nil {
			fmt.Println(err)
		}
	}
	// middleware.DeadLetter does this.
	consume(orders, 2, func(ctx context.Context, d *queue.Delivery) error {
		bug := errors.New("division by zero")
		return dead.Publish(ctx, queue.NewDeadLetter(d, bug, queue.ReasonFailures, time.Now()))
	})

	result, err := queue.Redrive(ctx, dead, orders, &queue.RedriveOptions{
		Filter: func(d *queue.Delivery) bool { return d.DeadLetter.Error == "division by zero" },
		Rate:   100,
		Quiet:  100 * time.Millisecond,
	})
	fmt.Println("moved", result.Moved, err)
	consume(orders, 2, func(_ context.Context, d *queue.Delivery) error { return nil })
	// Output: moved 2 <nil>
}

// A wrapper hides what the queue beneath it can do; As looks through.
func ExampleAs() {
	var p queue.Publisher = counting{open("orders"), new(int)}
	in, ok := queue.As[queue.Inspector](p)
	if !ok {
		fmt.Println("this queue doesn't tell its depth")
		return
	}
	s, err := in.Stats(context.Background())
	fmt.Println(*s.Ready, err)
	// Output: 0 <nil>
}

type counting struct {
	queue.Publisher
	n *int
}

func (c counting) Unwrap() queue.Publisher { return c.Publisher }

func ExampleBackoff() {
	b := queue.Backoff{Min: time.Second, Max: time.Minute, Jitter: -1} // without randomness
	for n := 1; n <= 8; n++ {
		fmt.Print(b.Delay(n), " ")
	}
	// Output: 1s 2s 4s 8s 16s 32s 1m0s 1m0s
}

func ExampleFingerprint() {
	a := queue.Fingerprint(errors.New("order 17: timeout after 3s"))
	b := queue.Fingerprint(errors.New("order 4711: timeout after 10s"))
	c := queue.Fingerprint(errors.New("order 17: no such customer"))
	fmt.Println(a == b, a == c)
	// Output: true false
}

// Limits are checked before anything is sent.
func ExampleLimitError() {
	err := open("orders").Publish(context.Background(), &queue.Message{Body: make([]byte, 2<<20)})
	if limit, ok := errors.AsType[*queue.LimitError](err); ok {
		fmt.Println(limit.Field, limit.Max)
	}
	// Output: body and attributes 1048576
}

// Only what failed must be published again.
func ExamplePublishErrors() {
	q := open("orders")
	msgs := []*queue.Message{
		{Body: []byte("good")},
		{Body: []byte("bad"), Attributes: map[string]string{"queue-x": "reserved"}},
	}
	err := q.Publish(context.Background(), msgs...)
	for i, err := range queue.PublishErrors(err, len(msgs)) {
		fmt.Println(i, err == nil, errors.Is(err, queue.ErrInvalid))
	}
	// Output:
	// 0 true false
	// 1 false true
}

func ExampleCheckName() {
	fmt.Println(queue.CheckName("crm-leads"))
	fmt.Println(queue.CheckName("crm.leads"))
	// Output:
	// <nil>
	// queue: invalid queue name: "crm.leads" isn't 3 to 75 letters, digits, - and _, beginning with a letter
}

// tenant stands for an option of a provider, such as sqs.TenantID.
type tenant string

func (tenant) System() string { return "aws_sqs" }

// With Hint a program that also runs on other backends may set an option of one.
func ExampleHint() {
	q := open("orders") // in memory
	ctx := context.Background()
	err := q.Publish(ctx, &queue.Message{Options: []queue.MessageOption{tenant("acme")}})
	fmt.Println(errors.Is(err, queue.ErrUnsupported))
	fmt.Println(q.Publish(ctx, &queue.Message{Options: []queue.MessageOption{queue.Hint(tenant("acme"))}}))
	// Output:
	// true
	// <nil>
}

func ExampleWrapPublisher() {
	n := 0
	count := func(p queue.Publisher) queue.Publisher { return counting{p, &n} }
	p := queue.WrapPublisher(open("orders"), count)
	fmt.Println(p.Publish(context.Background(), &queue.Message{}), n)
	// Output: <nil> 1
}

func (c counting) Publish(ctx context.Context, msgs ...*queue.Message) error {
	*c.n += len(msgs)
	return c.Publisher.Publish(ctx, msgs...)
}
