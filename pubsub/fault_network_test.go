package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	apiv1 "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/anyqueue/anyqueue/queue"
)

// traffic publishes batches of five from two sides until it's stopped.
func (r *rig) traffic(q queue.Queue) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for side := range 2 {
		wg.Go(func() {
			pace := time.NewTicker(20 * time.Millisecond)
			defer pace.Stop()
			for n := 0; ctx.Err() == nil; n++ {
				r.publish(context.Background(), q, numbered(fmt.Sprintf("%d/%d/", side, n), 5)...)
				select {
				case <-pace.C:
				case <-ctx.Done():
				}
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// more waits until n more different messages were handled.
func (r *rig) more(n int) {
	r.t.Helper()
	r.mu.Lock()
	from := len(r.handled)
	r.mu.Unlock()
	r.await(fmt.Sprint(n, " more messages"), func() bool { return len(r.handled) >= from+n })
}

// finish stops traffic, waits for what was confirmed, ends the consumer and judges.
func (r *rig) finish(stop func(), c *running) {
	r.t.Helper()
	stop()
	r.awaitAll()
	assert.NoError(r.t, c.end())
	duplicates := r.judge()
	r.empty()
	confirmed, unknown, refused := r.confirmed()
	counts := countsOf(r.t, r.q)
	r.t.Logf("%d confirmed, %d unknown, %d refused; %d duplicates; %d sent again, %d pulls unread, %d settlements failed",
		confirmed, unknown, refused, duplicates, counts.Retried, counts.Unread, c.Stats().SettleErrors)
	assert.Positive(r.t, confirmed)
}

// The emulator can't be reached for some seconds, in the middle of publishing and
// consuming: both go on by themselves.
func TestServerAnOutage(t *testing.T) {
	for _, c := range []struct {
		name      string
		down, up  func(*proxy)
		long      time.Duration
		explained bool // publishes were in doubt
	}{
		{"connections are refused", (*proxy).refuse, (*proxy).allow, 4 * time.Second, true},
		{"nothing passes", (*proxy).freeze, (*proxy).thaw, 4 * time.Second, false},
		{"nothing passes for longer than a request may take", (*proxy).freeze, (*proxy).thaw, 12 * time.Second, true},
		{"nothing passes, then connections break", (*proxy).freeze, func(p *proxy) {
			p.cut()
			p.thaw()
		}, 4 * time.Second, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := faulty(t, nil)
			run := r.consume(r.q, queue.ConsumerOptions{Concurrency: 10}, nil)
			stop := r.traffic(r.q)
			r.more(200)
			c.down(r.net)
			time.Sleep(c.long) // the length of the outage
			c.up(r.net)
			r.more(200)
			r.finish(stop, run)
			if !c.explained {
				assert.Zero(t, countsOf(t, r.q).Retried, "a network that's only late costs nothing")
			}
		})
	}
}

func TestServerAConnectionThatBreaksAgainAndAgain(t *testing.T) {
	r := faulty(t, nil)
	run := r.consume(r.q, queue.ConsumerOptions{Concurrency: 10}, nil)
	stop := r.traffic(r.q)
	for range 8 {
		r.more(300)
		r.net.cut()
	}
	r.more(300)
	r.finish(stop, run)
	assert.GreaterOrEqual(t, r.net.cuts, 8)
}

func TestServerASlowNetwork(t *testing.T) {
	r := faulty(t, nil)
	r.net.slow(100 * time.Millisecond)
	run := r.consume(r.q, queue.ConsumerOptions{Concurrency: 10}, nil)
	stop := r.traffic(r.q)
	r.more(500)
	r.finish(stop, run)
	assert.Zero(t, countsOf(t, r.q).Retried)
}

// A publish of a key that fails keeps the later ones of its call back; the next call
// goes on, and what was confirmed is handled in its order.
func TestServerAnOrderingKeyWhosePublishFailed(t *testing.T) {
	r := faulty(t, &queue.QueueSpec{Ordered: true})
	consumer := r.open(r.aside) // which the network doesn't concern
	run := r.consume(consumer, queue.ConsumerOptions{Concurrency: 10}, nil)
	keys := []string{"a", "b", "c"}
	round := 0
	call := func(patience time.Duration) (doubtful int) {
		var wg sync.WaitGroup
		var unknown atomic.Int64
		for _, k := range keys {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				var msgs []*queue.Message
				for i := range 5 {
					msgs = append(msgs, keyed(k, fmt.Sprintf("%s%03d", k, 5*round+i)))
				}
				errs := r.publish(ctx, r.q, msgs...)
				for i := 1; i < len(errs); i++ {
					if errs[i-1] != nil {
						assert.Error(t, errs[i], "nothing overtakes")
					}
				}
				for _, err := range errs {
					if errors.Is(err, queue.ErrUnknownOutcome) {
						unknown.Add(1)
					}
				}
			})
		}
		wg.Wait()
		round++
		return int(unknown.Load())
	}
	for range 4 {
		call(10 * time.Second)
		r.unreachable()
		assert.Zero(t, call(300*time.Millisecond), "in doubt, while nobody was there")
		r.net.allow()
		call(10 * time.Second)
		r.net.freeze()
		call(300 * time.Millisecond)
		r.net.cut()
		r.net.thaw()
	}
	call(30 * time.Second)
	r.awaitAll()
	assert.NoError(t, run.end())
	for _, k := range keys {
		var got []string
		for _, b := range r.first(k) {
			if r.said[b] == nil {
				got = append(got, b)
			}
		}
		assert.True(t, slices.IsSorted(got), "%v", got)
		assert.GreaterOrEqual(t, len(got), 5*5, "of the calls in peace")
	}
	_, unknown, refused := r.confirmed()
	assert.GreaterOrEqual(t, refused, 4*len(keys)*5, "while nobody was there")
	assert.Positive(t, unknown, "while nobody answered")
	r.judge()
	r.empty()
}

// Pub/Sub fails a request as a whole for one message that doesn't match the topic's
// schema.
func TestServerOneInvalidMessageAmongAHundred(t *testing.T) {
	for _, spec := range []queue.QueueSpec{{}, {Ordered: true}} {
		t.Run(fmt.Sprint("ordered ", spec.Ordered), func(t *testing.T) {
			r := faulty(t, &spec)
			schemas, err := apiv1.NewSchemaClient(t.Context(), option.WithEndpoint(emulatorAddress(t)), option.WithoutAuthentication(),
				option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
			require.NoError(t, err)
			defer func() { assert.NoError(t, schemas.Close()) }()
			name := unique("schema")
			_, err = schemas.CreateSchema(t.Context(), &pubsubpb.CreateSchemaRequest{Parent: "projects/" + project, SchemaId: name, Schema: &pubsubpb.Schema{
				Type: pubsubpb.Schema_AVRO, Definition: `{"type":"record","name":"Order","fields":[{"name":"n","type":"int"}]}`,
			}})
			require.NoError(t, err)
			strict := unique("strict")
			_, err = r.direct.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{
				Name: topicName(strict), SchemaSettings: &pubsubpb.SchemaSettings{Schema: "projects/" + project + "/schemas/" + name, Encoding: pubsubpb.Encoding_JSON},
			})
			require.NoError(t, err)
			_, err = r.backend.Ensure(t.Context(), strict, &spec)
			require.NoError(t, err)
			r.name = strict
			q := r.open(r.backend)
			run := r.consume(q, queue.ConsumerOptions{Concurrency: 10}, nil)
			msgs := make([]*queue.Message, 100)
			for i := range msgs {
				msgs[i] = message(fmt.Sprintf(`{"n":%d}`, i))
				if spec.Ordered {
					msgs[i].OrderingKey = "k"
				}
			}
			msgs[37].Body = []byte(`{"n":"thirty-seven"}`)
			errs := r.publish(t.Context(), q, msgs...)
			for i, err := range errs {
				switch {
				case i == 37:
					assert.ErrorContains(t, err, "InvalidArgument")
					assert.NotErrorIs(t, err, queue.ErrUnknownOutcome)
				case i > 37 && spec.Ordered:
					assert.ErrorContains(t, err, "not sent")
				default:
					assert.NoError(t, err)
				}
			}
			if spec.Ordered {
				r.publish(t.Context(), q, &queue.Message{Body: []byte(`{"n":100}`), OrderingKey: "k"})
			}
			r.awaitAll()
			assert.NoError(t, run.end())
			assert.Zero(t, r.judge())
			r.empty()
			if spec.Ordered {
				assert.Equal(t, `{"n":100}`, r.order[len(r.order)-1], "the next call goes on")
			}
		})
	}
}
