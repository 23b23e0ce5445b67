package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	gcp "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// pubsubProject is the project of all that's made: the emulator takes any.
const pubsubProject = "benchmarks"

// pubsubLease is a subscription's default, and its least.
const pubsubLease = 10 * time.Second

// pubsubMost is how many messages or ack ids a request has at most.
const pubsubMost = 1000

// pubsubQueue is a topic with its subscription of one contender for one round,
// with a client whose every call is counted.
type pubsubQueue struct {
	name                string // of both
	topic, subscription string // full names
	client              *gcp.Client
	meter               *meter
	address             string

	direct *gcp.Client // past the meter: for what isn't measured
}

// openPubSub makes a topic and its subscription.
func openPubSub(o options) (*pubsubQueue, error) {
	address, err := o.emulator.host()
	if err != nil {
		return nil, err
	}
	q := &pubsubQueue{name: "bench-" + strconv.FormatInt(time.Now().UnixNano(), 36), meter: newMeter(), address: address}
	q.topic = "projects/" + pubsubProject + "/topics/" + q.name
	q.subscription = "projects/" + pubsubProject + "/subscriptions/" + q.name
	ctx := context.Background()
	if q.client, err = gcp.NewClient(ctx, pubsubProject, q.options()...); err != nil {
		return nil, err
	}
	if q.direct, err = gcp.NewClient(ctx, pubsubProject, clientOptions(address, nil)...); err != nil {
		return nil, err
	}
	if _, err := q.direct.TopicAdminClient.CreateTopic(ctx, &pubsubpb.Topic{Name: q.topic}); err != nil {
		return nil, err
	}
	_, err = q.direct.SubscriptionAdminClient.CreateSubscription(ctx, &pubsubpb.Subscription{
		Name: q.subscription, Topic: q.topic, AckDeadlineSeconds: int32(pubsubLease / time.Second),
	})
	return q, err
}

// options are those of a client whose calls are counted.
func (q *pubsubQueue) options() []option.ClientOption { return clientOptions(q.address, q.meter) }

// clientOptions are what a client takes by itself when it finds an emulator in
// its environment: a connection for each of its halves, and no telemetry.
func clientOptions(address string, m *meter) []option.ClientOption {
	out := []option.ClientOption{
		option.WithEndpoint(address), option.WithoutAuthentication(), option.WithTelemetryDisabled(), option.WithGRPCConnectionPool(1),
	}
	for _, d := range dialOptions(m) {
		out = append(out, option.WithGRPCDialOption(d))
	}
	return out
}

func dialOptions(m *meter) []grpc.DialOption {
	out := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if m != nil {
		out = append(out, m.dial()...)
	}
	return out
}

// close removes the topic and its subscription.
func (q *pubsubQueue) close() error {
	ctx := context.Background()
	err := q.direct.SubscriptionAdminClient.DeleteSubscription(ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: q.subscription})
	err = errorsFirst(err, q.direct.TopicAdminClient.DeleteTopic(ctx, &pubsubpb.DeleteTopicRequest{Topic: q.topic}))
	return errors.Join(err, q.client.Close(), q.direct.Close())
}

// fill publishes n messages whose bodies begin with their numbers.
func (q *pubsubQueue) fill(n int) error {
	const (
		senders = 4
		size    = 500
	)
	var (
		next atomic.Int64
		wg   sync.WaitGroup
		errs [senders]error
	)
	for s := range senders {
		wg.Go(func() {
			for errs[s] == nil {
				from := int(next.Add(size)) - size
				if from >= n {
					return
				}
				bodies := make([][]byte, 0, size)
				for i := from; i < min(from+size, n); i++ {
					bodies = append(bodies, numbered(i))
				}
				errs[s] = publishTo(q.direct, q.topic, bodies)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

// acknowledged waits until so many messages are acknowledged, whoever gathers
// acknowledgements.
func (q *pubsubQueue) acknowledged(n int) error {
	for end := time.Now().Add(pubsubLease); ; time.Sleep(time.Millisecond) {
		acked := q.meter.sum(methodAck).entries
		if acked >= n {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d messages weren't acknowledged", n-acked, n)
		}
	}
}

// publishTo publishes in one request.
func publishTo(c *gcp.Client, topic string, bodies [][]byte) error {
	msgs := make([]*pubsubpb.PubsubMessage, len(bodies))
	for i, body := range bodies {
		msgs[i] = &pubsubpb.PubsubMessage{Data: body, Attributes: newAttributes()}
	}
	_, err := c.TopicAdminClient.Publish(context.Background(), &pubsubpb.PublishRequest{Topic: topic, Messages: msgs})
	return err
}
