package main

import (
	"context"
	"path"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
)

// meter counts what goes over a client's connections, so that the counts are
// nobody's own. What a call tries again counts again.
type meter struct {
	mu      sync.Mutex
	calls   map[string]calls // by method
	receive time.Time        // when the first message was asked for
}

// Methods are named as Pub/Sub names them. What's sent on an open stream counts
// as the method that it stands for: with acknowledgements, as methodAck.
const (
	methodPublish = "Publish"
	methodPull    = "Pull"
	methodStream  = "StreamingPull"
	methodAck     = "Acknowledge"
	methodModify  = "ModifyAckDeadline"
)

func newMeter() *meter { return &meter{calls: map[string]calls{}} }

func (m *meter) count(method string, more calls) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.calls[method]
	m.calls[method] = calls{c.requests + more.requests, c.entries + more.entries}
	if m.receive.IsZero() && (method == methodPull || method == methodStream) {
		m.receive = time.Now()
	}
}

// sum is what was counted of these methods; none: of all.
func (m *meter) sum(methods ...string) calls {
	m.mu.Lock()
	defer m.mu.Unlock()
	var s calls
	if len(methods) == 0 {
		for _, c := range m.calls {
			s.requests, s.entries = s.requests+c.requests, s.entries+c.entries
		}
	}
	for _, method := range methods {
		c := m.calls[method]
		s.requests, s.entries = s.requests+c.requests, s.entries+c.entries
	}
	return s
}

// firstReceive is when the first message was asked for.
func (m *meter) firstReceive() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.receive
}

// dial are the options of a connection that's counted.
func (m *meter) dial() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithChainUnaryInterceptor(m.unary), grpc.WithChainStreamInterceptor(m.stream)}
}

func (m *meter) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	c := calls{requests: 1}
	switch r := req.(type) {
	case *pubsubpb.PublishRequest:
		c.entries = len(r.GetMessages())
	case *pubsubpb.AcknowledgeRequest:
		c.entries = len(r.GetAckIds())
	case *pubsubpb.ModifyAckDeadlineRequest:
		c.entries = len(r.GetAckIds())
	}
	name := path.Base(method)
	m.count(name, c)
	err := invoke(ctx, method, req, reply, cc, opts...)
	if r, ok := reply.(*pubsubpb.PullResponse); ok && err == nil {
		m.count(name, calls{entries: len(r.GetReceivedMessages())})
	}
	return err
}

func (m *meter) stream(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, d, cc, method, opts...)
	return meteredStream{s, m}, err
}

type meteredStream struct {
	grpc.ClientStream
	meter *meter
}

func (s meteredStream) SendMsg(msg any) error {
	if r, ok := msg.(*pubsubpb.StreamingPullRequest); ok {
		s.sent(r)
	}
	return s.ClientStream.SendMsg(msg)
}

func (s meteredStream) sent(r *pubsubpb.StreamingPullRequest) {
	switch acks, modified := len(r.GetAckIds()), len(r.GetModifyDeadlineAckIds()); {
	case acks > 0:
		s.meter.count(methodAck, calls{1, acks})
	case modified > 0:
		s.meter.count(methodModify, calls{1, modified})
	default:
		s.meter.count(methodStream, calls{requests: 1})
	}
}

func (s meteredStream) RecvMsg(msg any) error {
	err := s.ClientStream.RecvMsg(msg)
	if r, ok := msg.(*pubsubpb.StreamingPullResponse); ok && err == nil {
		s.meter.count(methodStream, calls{entries: len(r.GetReceivedMessages())})
	}
	return err
}
