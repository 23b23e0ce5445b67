package pubsub_test

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	gcp "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
)

// A queue on Google's in-process server: on Google Cloud the client needs no
// options.
func Example() {
	server := pstest.NewServer()
	defer server.Close()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	client, err := gcp.NewClient(ctx, "my-project", option.WithEndpoint(server.Addr), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	backend := pubsub.New(client, nil)
	if _, err := backend.Ensure(ctx, "orders", nil); err != nil {
		fmt.Println(err)
		return
	}
	q, err := backend.Open(ctx, "orders", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() {
		// An idle pull takes up to 20 s to end by itself: cutting it off is no error.
		closing, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := q.Close(closing); err != nil {
			fmt.Println(err)
		}
	}()
	if err := q.Publish(ctx, &queue.Message{Body: []byte("one book")}); err != nil {
		fmt.Println(err)
		return
	}
	c, err := queue.NewConsumer(q, func(_ context.Context, d *queue.Delivery) error {
		info, _ := pubsub.InfoOf(d)
		fmt.Printf("%s from %s\n", d.Body, info.Subscription)
		stop()
		return nil
	}, &queue.ConsumerOptions{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("ended:", c.Run(ctx))
	// Output:
	// one book from projects/my-project/subscriptions/orders
	// ended: <nil>
}
