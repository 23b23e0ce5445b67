package main

import (
	"context"
	"fmt"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

const (
	middlewares  = 10
	cpuFigure    = "CPU ns/delivery"
	allocsFigure = "allocs/delivery"
)

// noops are middlewares that do nothing but call the next.
func noops(n int) []queue.Middleware {
	out := make([]queue.Middleware, n)
	for i := range out {
		out[i] = queue.MiddlewareFunc(func(next queue.Handler) queue.Handler {
			return func(ctx context.Context, d *queue.Delivery) error { return next(ctx, d) }
		})
	}
	return out
}

// measureMiddleware takes the engine alone: a consumer on a Subscriber that
// costs nearly nothing, without and with middleware, and the chain of handlers
// without a consumer. What middleware adds is told from the chain, as ten calls
// are far below what two runs of a consumer differ by; that a consumer adds no
// allocation for it is told from the consumer.
func measureMiddleware(o options, _ []contender, r *report) error {
	engine := func(concurrency, mw int) func() (figures, error) {
		return func() (figures, error) { return engineOnly(o.deliveries, concurrency, noops(mw)) }
	}
	chain := func(mw int) func() (figures, error) {
		h := queue.Chain(func(_ context.Context, d *queue.Delivery) error {
			d.Failures++
			return nil
		}, noops(mw)...)
		return func() (figures, error) { return callOnly(10*o.deliveries, h) }
	}
	f, err := interleave(o.rounds, engine(handlers, 0), engine(handlers, middlewares), engine(1, 0), chain(0), chain(middlewares))
	if err != nil {
		return err
	}
	engineFigures := map[string]figures{
		fmt.Sprintf("engine, %d handlers", handlers):         f[0],
		fmt.Sprintf("the same, %d middlewares", middlewares): f[1],
		"engine, 1 handler":       f[2],
		"handler called directly": f[3],
		fmt.Sprintf("the same, %d middlewares, by Chain", middlewares): f[4],
	}
	r.add("engine, per delivery", engineFigures)
	added := f[4][cpuFigure] - f[3][cpuFigure]
	r.target(target{Name: "ten no-op middlewares add", Unit: "ns", Want: 30, Got: added, Figure: added})
	// What a consumer allocates for each group of deliveries varies by as much as
	// its groups do; a real one would be a whole allocation.
	added = max(f[1][allocsFigure]-f[0][allocsFigure], f[4][allocsFigure]-f[3][allocsFigure], 0)
	r.target(target{Name: "ten no-op middlewares add", Unit: "allocations", Want: 0.05, Got: added, Figure: added})
	return nil
}

// callOnly calls a handler n times. Its time is CPU time, as nothing in it waits:
// that of the clock would also count what others did meanwhile.
func callOnly(n int, h queue.Handler) (figures, error) {
	ctx, d := context.Background(), &queue.Delivery{}
	before := readMem()
	begun, err := cpuTime()
	if err != nil {
		return nil, err
	}
	for range n {
		if err := h(ctx, d); err != nil {
			return nil, err
		}
	}
	ended, err := cpuTime()
	if err != nil {
		return nil, err
	}
	after := readMem()
	return figures{
		cpuFigure:    float64((ended - begun).Nanoseconds()) / float64(n),
		allocsFigure: float64(after.Mallocs-before.Mallocs) / float64(n),
	}, nil
}

// engineOnly is what the engine itself costs for each delivery, from the receive
// to the settlement.
func engineOnly(n, concurrency int, mw []queue.Middleware) (figures, error) {
	s := newTrivial(n)
	opts := consumerOptions(concurrency)
	opts.Middleware = mw
	return engineOn(s, s, opts)
}

// engineOn consumes everything that s has; from is s or what's around it.
func engineOn(s *trivial, from queue.Subscriber, opts *queue.ConsumerOptions) (figures, error) {
	n := s.total
	c, err := queue.NewConsumer(from, func(context.Context, *queue.Delivery) error { return nil }, opts)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	cpu, err := cpuTime()
	if err != nil {
		return nil, err
	}
	before := readMem()
	begun := time.Now()
	go func() { ended <- c.Run(ctx) }()
	<-s.settledAll
	took := time.Since(begun)
	after := readMem()
	used, err := cpuTime()
	if err != nil {
		return nil, err
	}
	cancel()
	if err := <-ended; err != nil {
		return nil, err
	}
	if got := c.Stats().Succeeded; got != uint64(n) {
		return nil, fmt.Errorf("the engine has handled %d of %d deliveries", got, n)
	}
	return figures{
		"ns/delivery": float64(took.Nanoseconds()) / float64(n),
		cpuFigure:     float64((used - cpu).Nanoseconds()) / float64(n),
		allocsFigure:  float64(after.Mallocs-before.Mallocs) / float64(n),
	}, nil
}
