package admin_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/admin"
	"github.com/anyqueue/anyqueue/queue/config"
)

// A look at the queues of a file, and the dead letters of one go back.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	bus, err := config.Open(ctx, "testdata/queues.yaml", config.Backends{"memory": memory.New(nil)})
	if err != nil {
		fmt.Println(err)
		return
	}
	// With a Store, such as admin.FileStore("/var/lib/orders/redrives"), redrives go on
	// after a restart, and other processes see them.
	a, err := admin.New(ctx, bus, &admin.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return
	}
	me := admin.By{Actor: "ada", Reason: "orders go out again"}

	plan, err := a.Plan(ctx, nil)
	for _, e := range plan {
		fmt.Println("to create:", e.Report.Created, e.Err)
	}
	if err == nil {
		_, err = a.Ensure(ctx, nil, me)
	}
	dead := queue.NewDeadLetter(&queue.Delivery{
		Message: queue.Message{ID: "order-7", Body: []byte("a book")}, Source: queue.Endpoint{System: memory.System, Name: "orders"}, EnqueuedAt: time.Now(),
	}, errors.New("no such address"), queue.ReasonRejected, time.Now())
	if err == nil {
		err = a.Publish(ctx, "orders-dlq", me, dead)
	}
	if err != nil {
		fmt.Println(err)
		return
	}

	letters, err := a.Peek(ctx, "orders-dlq", 100)
	for _, g := range admin.Group(letters) {
		fmt.Printf("%d failed in %v: %s\n", g.Count, g.Sources, g.Error)
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	op, err := a.Redrive(ctx, admin.RedriveSpec{From: "orders-dlq", Rate: 100, By: me})
	if err == nil {
		op, err = a.WaitRedrive(ctx, op.ID)
	}
	fmt.Println(op.Status, op.Moved, err)

	rows, err := a.Stats(ctx, "orders*")
	for _, r := range rows {
		fmt.Println(r.Queue, *r.Ready, r.Err) // nil, where a broker doesn't tell
	}
	fmt.Println(err, a.Close(ctx), bus.Close(ctx))
	// Output:
	// to create: [queue orders] <nil>
	// to create: [queue orders-dlq] <nil>
	// 1 failed in [orders]: no such address
	// done 1 <nil>
	// orders 1 <nil>
	// orders-dlq 0 <nil>
	// <nil> <nil> <nil>
}
