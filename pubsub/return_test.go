package pubsub_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/anyqueue/anyqueue/queue"
)

// subscriptions are pulls that a test answers: as Pub/Sub would, they wait until
// something is there.
type subscriptions struct {
	mu    sync.Mutex
	ready map[string][]*pubsubpb.ReceivedMessage // by subscription
	news  map[string]chan struct{}
	sent  map[string]*pubsubpb.ReceivedMessage // by ack id
	back  []string                             // ack ids that were given back
	n     int
	slow  map[string]time.Duration // to answer
}

func (f *fake) stage() *subscriptions {
	s := &subscriptions{ready: map[string][]*pubsubpb.ReceivedMessage{}, news: map[string]chan struct{}{}, sent: map[string]*pubsubpb.ReceivedMessage{}}
	f.on("Pull", func(ctx context.Context, in any, _ func() (any, error)) (any, error) {
		return s.pull(ctx, in.(*pubsubpb.PullRequest))
	})
	f.on("ModifyAckDeadline", func(_ context.Context, in any, _ func() (any, error)) (any, error) {
		if m := in.(*pubsubpb.ModifyAckDeadlineRequest); m.GetAckDeadlineSeconds() == 0 {
			s.giveBack(m.GetSubscription(), m.GetAckIds())
		}
		return nothing, nil
	})
	f.on("Acknowledge", func(context.Context, any, func() (any, error)) (any, error) { return nothing, nil })
	return s
}

func (s *subscriptions) pull(ctx context.Context, in *pubsubpb.PullRequest) (*pubsubpb.PullResponse, error) {
	name := in.GetSubscription()
	time.Sleep(s.slow[name])
	for {
		s.mu.Lock()
		if n := min(len(s.ready[name]), int(in.GetMaxMessages())); n > 0 {
			out := s.ready[name][:n]
			s.ready[name] = s.ready[name][n:]
			for _, m := range out {
				s.sent[m.GetAckId()] = m
			}
			s.mu.Unlock()
			return &pubsubpb.PullResponse{ReceivedMessages: out}, nil
		}
		if s.news[name] == nil {
			s.news[name] = make(chan struct{})
		}
		news := s.news[name]
		s.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// add makes messages ready on a subscription.
func (s *subscriptions) add(name string, bodies ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range bodies {
		s.n++
		s.ready[name] = append(s.ready[name], &pubsubpb.ReceivedMessage{
			AckId: b, Message: &pubsubpb.PubsubMessage{Data: []byte(b), MessageId: fmt.Sprint(s.n)},
		})
	}
	s.tellLocked(name)
}

func (s *subscriptions) tellLocked(name string) {
	if news := s.news[name]; news != nil {
		close(news)
		delete(s.news, name)
	}
}

// giveBack makes messages ready again.
func (s *subscriptions) giveBack(name string, ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.back = append(s.back, ids...)
	for _, id := range ids {
		s.ready[name] = append(s.ready[name], s.sent[id])
	}
	s.tellLocked(name)
}

func (s *subscriptions) givenBack() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.back
}

func TestAReceiveBringsWhatEitherSubscriptionHas(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		require.NoError(t, q.Publish(t.Context(), message("published")))
		require.NoError(t, q.(queue.Redriver).PublishBack(t.Context(), message("published back")))
		ds := receive(t, q, 2)
		assert.ElementsMatch(t, []string{"published", "published back"}, bodies(ds))
		_, err := q.Extend(t.Context(), time.Minute, ds...)
		require.NoError(t, err)
		require.NoError(t, q.Settle(t.Context(), settlements(queue.Ack, ds...)...))
		for method, n := range map[string]int{"ModifyAckDeadline": 2, "Acknowledge": 2} {
			assert.Equal(t, n, f.requests()[method], "each subscription has its own")
		}
		time.Sleep(time.Minute)
		got, err := q.Receive(t.Context(), 10)
		require.NoError(t, err)
		assert.Empty(t, got, "both are done")
	})
}

// A pull goes on while its Receive has returned with what the other brought; the next
// Receive takes it over, whatever room that has.
func TestNothingIsGivenBackBetweenTwoReceives(t *testing.T) {
	for _, c := range []struct{ name, first, then string }{
		{"the return subscription first", backSub, mainSub},
		{"the main one first", mainSub, backSub},
	} {
		for _, moment := range []struct {
			name   string
			before bool // the second message comes before the next Receive
		}{{"before the next Receive", true}, {"during it", false}} {
			t.Run(c.name+", the other "+moment.name, func(t *testing.T) {
				onFake(t, func(t *testing.T, f *fake) {
					q := f.fresh(t, nil)
					s := f.stage()
					s.add(c.first, "one")
					ds, err := q.Receive(t.Context(), 16)
					require.NoError(t, err)
					require.Equal(t, []string{"one"}, bodies(ds))
					synctest.Wait() // the other's pull has arrived
					pulls := len(f.pulls())
					if moment.before {
						s.add(c.then, "two", "three")
						time.Sleep(100 * time.Millisecond)
					} else {
						time.AfterFunc(100*time.Millisecond, func() { s.add(c.then, "two", "three") })
					}
					var more []string
					for until := time.Now().Add(time.Minute); len(more) < 2 && time.Now().Before(until); {
						ds, err = q.Receive(t.Context(), 1) // the others are under way
						require.NoError(t, err)
						assert.LessOrEqual(t, len(ds), 1)
						more = append(more, bodies(ds)...)
					}
					assert.Equal(t, []string{"two", "three"}, more)
					assert.Empty(t, s.givenBack())
					for _, p := range f.pulls()[pulls:] {
						assert.Equal(t, c.first, p.GetSubscription(), "the other's pull was taken over")
					}
				})
			})
		}
	}
}

func TestBothSubscriptionsTogetherBringAtMostWhatWasAskedFor(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		s := f.stage()
		var want []string
		for i := range 20 {
			s.add(mainSub, fmt.Sprint("m", i))
			s.add(backSub, fmt.Sprint("b", i))
			want = append(want, fmt.Sprint("m", i), fmt.Sprint("b", i))
		}
		var got []string
		for until := time.Now().Add(time.Minute); len(got) < len(want) && time.Now().Before(until); {
			ds, err := q.Receive(t.Context(), 3)
			require.NoError(t, err)
			require.LessOrEqual(t, len(ds), 3)
			got = append(got, bodies(ds)...)
		}
		assert.ElementsMatch(t, want, got)
		assert.Empty(t, s.givenBack())
	})
}

// What can't be received from is asked less and less, up to once a minute, and said
// once until it works again.
func TestABrokenReturnSubscriptionDoesNotStopTheMainOne(t *testing.T) {
	for _, code := range []codes.Code{codes.NotFound, codes.PermissionDenied, codes.Unavailable} {
		t.Run(code.String(), func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				f.ensure(t, "orders", nil)
				log, opts := logged()
				q := f.open(t, "orders", opts)
				f.forget()
				f.on("Pull", of(backSub, refuse(code)))
				begun := time.Now()
				for time.Since(begun) < 5*time.Minute {
					require.NoError(t, q.Publish(t.Context(), message("a")))
					ds := receive(t, q, 1)
					require.NoError(t, q.Settle(t.Context(), settlements(queue.Ack, ds...)...))
					time.Sleep(5 * time.Second)
				}
				asked := 0
				for _, p := range f.pulls() {
					if p.GetSubscription() == backSub {
						asked++
					}
				}
				assert.GreaterOrEqual(t, asked, 8)
				assert.LessOrEqual(t, asked, 6+5, "after 1 s, 2 s, 4 s, … 1 min")
				assert.Equal(t, 1, countLines(log.String(), "can't be received from"))

				f.heal()
				require.NoError(t, q.(queue.Redriver).PublishBack(t.Context(), message("back")))
				assert.Equal(t, []string{"back"}, bodies(receive(t, q, 1)), "it's tried again")
				f.on("Pull", of(backSub, refuse(code)))
				_, err := q.Receive(t.Context(), 1)
				require.NoError(t, err)
				synctest.Wait()
				assert.Equal(t, 2, countLines(log.String(), "can't be received from"))
			})
		})
	}
}

// A return subscription that may not be looked at is received from all the same:
// there may be something in it.
func TestAReturnSubscriptionThatMayNotBeReadIsReceivedFrom(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.ensure(t, "orders", nil)
		f.on("GetSubscription", of(backSub, refuse(codes.PermissionDenied)))
		q := f.open(t, "orders", nil)
		assert.Equal(t, []string{"that " + backSub + " exists"}, q.Capabilities().Assumed)
		f.Publish(topicName("orders.return"), []byte("a"), nil)
		assert.Equal(t, []string{"a"}, bodies(receive(t, q, 1)))
	})
}

func TestAReturnSubscriptionOfAnotherTopicIsNotReceivedFrom(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		f.topic(t, topicName("orders"))
		f.subscribe(t, topicName("orders"), mainSub, nil)
		f.topic(t, topicName("else"))
		f.subscribe(t, topicName("else"), backSub, nil)
		log, opts := logged()
		q := f.open(t, "orders", opts)
		assert.Contains(t, log.String(), "not received from")
		f.forget()
		_, err := q.Receive(t.Context(), 1)
		require.NoError(t, err)
		for _, p := range f.pulls() {
			assert.Equal(t, mainSub, p.GetSubscription())
		}
	})
}

// While slow handlers work on a backlog, what was redriven gets its turn, and isn't
// given back again and again for want of one: each time would cost it an attempt.
func TestABacklogDoesNotStarveTheReturnSubscription(t *testing.T) {
	onFake(t, func(t *testing.T, f *fake) {
		q := f.fresh(t, nil)
		s := f.stage()
		s.slow = map[string]time.Duration{mainSub: 10 * time.Millisecond, backSub: 15 * time.Millisecond}
		for i := range 40 {
			s.add(mainSub, fmt.Sprint("m", i))
		}
		for i := range 5 {
			s.add(backSub, fmt.Sprint("b", i))
		}
		var order []string
		c, err := queue.NewConsumer(q, queue.Handler(func(_ context.Context, d *queue.Delivery) error {
			order = append(order, string(d.Body))
			time.Sleep(5 * time.Second)
			return nil
		}), &queue.ConsumerOptions{Concurrency: 1, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
		defer stop()
		require.NoError(t, c.Run(ctx))
		last := 0
		for i, b := range order {
			if b[0] == 'b' {
				last = i + 1
			}
		}
		t.Log(order, s.givenBack())
		assert.LessOrEqual(t, last, 12, "the last of those that were redriven")
		redriven := 0
		for _, b := range s.givenBack() {
			if b[0] == 'b' {
				redriven++
			}
		}
		assert.LessOrEqual(t, redriven, 1, "the one that came while nobody knew yet of both")
		assert.LessOrEqual(t, len(s.givenBack()), 10)
	})
}

// Each message that's given back costs an attempt.
func TestOfTwoBacklogsNothingIsGivenBackForWantOfAHandler(t *testing.T) {
	for _, work := range []time.Duration{100 * time.Millisecond, time.Second, 5 * time.Second} {
		t.Run(work.String(), func(t *testing.T) {
			onFake(t, func(t *testing.T, f *fake) {
				q := f.fresh(t, nil)
				s := f.stage()
				s.slow = map[string]time.Duration{mainSub: 10 * time.Millisecond, backSub: 15 * time.Millisecond}
				const n = 50
				for i := range n {
					s.add(mainSub, fmt.Sprint("m", i))
					s.add(backSub, fmt.Sprint("b", i))
				}
				ctx, stop := context.WithTimeout(t.Context(), time.Hour)
				defer stop()
				handled := 0
				c, err := queue.NewConsumer(q, queue.Handler(func(context.Context, *queue.Delivery) error {
					time.Sleep(work)
					if handled++; handled == 2*n {
						stop()
					}
					return nil
				}), &queue.ConsumerOptions{Concurrency: 1, Logger: slog.New(slog.DiscardHandler)})
				require.NoError(t, err)
				require.NoError(t, c.Run(ctx))
				assert.Equal(t, 2*n, handled)
				assert.LessOrEqual(t, len(s.givenBack()), 5, "at the beginning, and when one has come to its end")
			})
		})
	}
}
