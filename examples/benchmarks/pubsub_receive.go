package main

import (
	"context"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

// rawPulls receives by several unary pulls at once. The emulator answers with a
// hundred messages at most, whatever it's asked for; from four pulls on it's busy.
func rawPulls(q *pubsubQueue, co pubsubConsumerOptions, h cloudHandler) (pubsubConsumer, error) {
	return newRawPubSubConsumer(q, co.handlers, h, co.pulls, func(ctx context.Context, s *rawPubSubConsumer) error {
		for {
			out, err := q.client.SubscriptionAdminClient.Pull(ctx, &pubsubpb.PullRequest{Subscription: q.subscription, MaxMessages: pubsubMost})
			if err != nil {
				return err
			}
			s.deliver(out.GetReceivedMessages())
		}
	}), nil
}

// rawStreamLease is what the high-level client asks for too.
const rawStreamLease = 60 // seconds

// rawStreams receives by several streams at once: the emulator sends a hundred
// messages every 50 ms on each, so that it takes forty to keep it busy. It
// acknowledges beside them, as the high-level client does: on a stream a request is
// written at once, so that they are many and small.
func rawStreams(q *pubsubQueue, co pubsubConsumerOptions, h cloudHandler) (pubsubConsumer, error) {
	return newRawPubSubConsumer(q, co.handlers, h, co.streams, func(ctx context.Context, s *rawPubSubConsumer) error {
		stream, err := q.client.SubscriptionAdminClient.StreamingPull(ctx)
		if err != nil {
			return err
		}
		err = stream.Send(&pubsubpb.StreamingPullRequest{
			Subscription: q.subscription, StreamAckDeadlineSeconds: rawStreamLease, MaxOutstandingMessages: pubsubMost,
		})
		for err == nil {
			var out *pubsubpb.StreamingPullResponse
			if out, err = stream.Recv(); err == nil {
				s.deliver(out.GetReceivedMessages())
			}
		}
		return err
	}), nil
}
