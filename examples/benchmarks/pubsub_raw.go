package main

import (
	"context"
	"errors"
	"sync"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

// rawPubSubPublisher is the generated client, called for each message.
type rawPubSubPublisher struct{ q *pubsubQueue }

func rawPubSub(q *pubsubQueue) (cloudPublisher, error) { return rawPubSubPublisher{q}, nil }

func (p rawPubSubPublisher) publish(body []byte) error { return p.publishMany([][]byte{body}) }

func (p rawPubSubPublisher) publishMany(bodies [][]byte) error {
	return publishTo(p.q.client, p.q.topic, bodies)
}

func (rawPubSubPublisher) stop() error { return nil }

// tensSenders is how many of rawTens' requests there are at once: with more of them
// they aren't full.
const tensSenders = 4

// rawTens is the generated client, called for ten messages at a time.
func rawTens(q *pubsubQueue) (cloudPublisher, error) {
	return newGatherer(gathering{size: 10, senders: tensSenders}, func(bodies [][]byte) error {
		return publishTo(q.client, q.topic, bodies)
	}), nil
}

// rawPubSubConsumer is what an application writes by hand on the generated client,
// and well: something that receives, handlers, and acknowledgements in as few
// requests as two at once come to. It keeps no lease, tries nothing again and
// loses what its acknowledgements lose.
type rawPubSubConsumer struct {
	cancel    context.CancelFunc
	receivers sync.WaitGroup
	handlers  sync.WaitGroup
	acked     chan struct{}
	messages  chan *pubsubpb.ReceivedMessage
	handled   chan string // ack ids

	mu  sync.Mutex
	err error
}

const (
	rawAhead = 10 // messages fetched ahead, per handler
	rawAcks  = 2  // acknowledging requests at once; 1 to 4 are alike
)

// newRawPubSubConsumer receives with so many receivers at once, until their context
// ends.
func newRawPubSubConsumer(q *pubsubQueue, handlers int, h cloudHandler, receivers int, receive func(context.Context, *rawPubSubConsumer) error) *rawPubSubConsumer {
	ctx, cancel := context.WithCancel(context.Background())
	s := &rawPubSubConsumer{
		cancel: cancel, acked: make(chan struct{}),
		messages: make(chan *pubsubpb.ReceivedMessage, rawAhead*handlers), handled: make(chan string, pubsubMost),
	}
	for range receivers {
		s.receivers.Go(func() {
			if err := receive(ctx, s); ctx.Err() == nil {
				s.failed(err)
			}
		})
	}
	for range handlers {
		s.handlers.Go(func() {
			for m := range s.messages {
				h(numberOf(m.GetMessage().GetData(), len(m.GetMessage().GetAttributes())))
				s.handled <- m.GetAckId()
			}
		})
	}
	go func() {
		defer close(s.acked)
		gather(s.handled, gathering{size: pubsubMost, senders: rawAcks}, func(ids []string) {
			s.failed(q.client.SubscriptionAdminClient.Acknowledge(context.Background(), &pubsubpb.AcknowledgeRequest{Subscription: q.subscription, AckIds: ids}))
		})
	}()
	return s
}

// deliver hands messages to the handlers.
func (s *rawPubSubConsumer) deliver(ms []*pubsubpb.ReceivedMessage) {
	for _, m := range ms {
		s.messages <- m
	}
}

func (s *rawPubSubConsumer) failed(err error) {
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = errors.Join(s.err, err)
}

func (s *rawPubSubConsumer) stop() error {
	s.cancel()
	s.receivers.Wait()
	close(s.messages)
	s.handlers.Wait()
	close(s.handled)
	<-s.acked
	return s.err
}
