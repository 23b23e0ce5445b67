package queue_test

import (
	"context"
	"fmt"
	"time"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
)

// What's left on one cloud goes to the other, where the consumers are already.
func ExampleBridge() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	from, err := memory.New(&memory.Options{Create: true, Like: memory.SQSStandard}).Open(ctx, "orders", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	to, err := memory.New(&memory.Options{Create: true, Like: memory.PubSub}).Open(ctx, "orders-there", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := from.Publish(ctx,
		&queue.Message{ID: "order-1", Body: []byte("a book"), Attributes: map[string]string{"shop": "7"}},
		&queue.Message{ID: "order-2", Body: []byte("a lamp")},
	); err != nil {
		fmt.Println(err)
	}

	// It ends when nothing has come for a while; without Quiet it goes on until its
	// context ends, while the producers move one after the other.
	res, err := queue.Bridge(ctx, from, to, &queue.BridgeOptions{Rate: 200, Quiet: 50 * time.Millisecond, Logger: discard})
	fmt.Println("copied", res.Copied, "left", res.Left, err)

	ds, err := to.Receive(ctx, 10)
	for _, d := range ds {
		fmt.Printf("%s: %s %v\n", d.ID, d.Body, d.Attributes)
	}
	fmt.Println(err, from.Close(ctx), to.Close(ctx))
	// Unordered output:
	// copied 2 left 0 <nil>
	// order-1: a book map[shop:7]
	// order-2: a lamp map[]
	// <nil> <nil> <nil>
}
