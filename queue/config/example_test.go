package config_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

// One file and one program, on any of the backends that it hands over.
func ExampleOpen() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	bus, err := config.Open(ctx, "testdata/queues.yaml", config.Backends{"memory": memory.New(nil)})
	if err != nil {
		fmt.Println(err)
		return
	}
	type lead struct{ Name string }
	bus.Handle("crm-leads", queue.JSON(func(_ context.Context, l lead, d *queue.Delivery) error {
		fmt.Printf("lead %s from %s\n", l.Name, d.Source)
		cancel() // one is enough
		return nil
	}))
	if err := queue.PublishJSON(ctx, bus.Publisher("crm-leads"), lead{"Ada"}); err != nil {
		fmt.Println(err)
	}
	if err := bus.Run(ctx); err != nil {
		fmt.Println(err)
	}
	if err := bus.Close(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output: lead Ada from memory/crm-leads
}

// A file is refused with everything that's wrong with it.
func ExampleParse() {
	_, err := config.Parse("queues.yaml", []byte(`
backend: memory
queues:
  crm-leads:
    concurency: 20
    delay: 5
    dead_letter: {queue: crm-leads-dql}
  crm-leads-dlq: {}
`), nil)
	fmt.Println(err)
	// Output:
	// queues.yaml:5:5: queues.crm-leads: unknown key "concurency"; did you mean "concurrency"?
	// queues.yaml:6:12: queues.crm-leads.delay: 5 has no unit; write 5s for seconds
	// queues.yaml:7:26: queues.crm-leads.dead_letter.queue: no queue "crm-leads-dql"; did you mean "crm-leads-dlq"?
}

// A program can hand out the schema, for editors of its operators.
func ExampleSchema() {
	var s struct {
		Title      string
		Properties struct {
			Queues struct {
				AdditionalProperties struct {
					Properties map[string]struct{ Description string }
				}
			}
		}
	}
	if err := json.Unmarshal(config.Schema(), &s); err != nil {
		fmt.Println(err)
	}
	fmt.Println(s.Title)
	fmt.Println(s.Properties.Queues.AdditionalProperties.Properties["concurrency"].Description)
	// Output:
	// Queues of an application (anyqueue)
	// Most handlers at once in this process, 1 to 1,000,000; default 16.
}

// The problems can be read one by one, for an editor or a check before a deploy.
func ExampleError() {
	_, err := config.Parse("queues.yaml", []byte("backend: memory\nqueues: {orders: {rate: 50}}\n"), nil)
	if e, ok := errors.AsType[*config.Error](err); ok {
		for _, p := range e.Problems {
			fmt.Printf("line %d, column %d: %s\n", p.Line, p.Column, p.Reason)
		}
	}
	// Output: line 2, column 25: 50 has no unit; write 50/s, /m, /h or /d
}

// Variables may come from anywhere, here from a map.
func ExampleOpenFile() {
	env := map[string]string{"CRM_CONCURRENCY": "5"}
	f, err := config.Parse("queues.yaml", []byte(`
backend: memory
queues:
  crm-leads: {concurrency: "${CRM_CONCURRENCY:-20}", delay: "${CRM_DELAY:-1m30s}"}
`), func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	if err != nil {
		fmt.Println(err)
		return
	}
	q := f.Queue("crm-leads")
	fmt.Println(q.Concurrency, q.Delay)

	bus, err := config.OpenFile(f, config.Backends{"memory": memory.New(nil)}, &config.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(bus.Publisher("crm-lead").Publish(context.Background()))
	// Output:
	// 5 1m30s
	// queue: invalid Publisher: queues.yaml has no queue "crm-lead"; did you mean "crm-leads"?
}

// What runs is seen, paused and scaled while it does; a pause ends by itself if asked to.
func ExampleBus_Pause() {
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	f, err := config.Parse("queues.yaml", []byte("backend: memory\nqueues: {mails: {concurrency: 8}}"), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	bus, err := config.OpenFile(f, config.Backends{"memory": memory.New(&memory.Options{Create: true})}, &config.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return
	}
	sent := make(chan bool)
	bus.Handle("mails", func(_ context.Context, d *queue.Delivery) error {
		fmt.Printf("sent %s\n", d.Body)
		close(sent)
		return nil
	})
	ended := make(chan error)
	go func() { ended <- bus.Run(ctx) }()

	show := func() {
		for _, s := range bus.States() {
			fmt.Printf("%s: paused %t, concurrency", s.Queue, s.Paused != nil)
			if s.Concurrency != nil {
				fmt.Printf(" %d, as %s: %s", s.Concurrency.Value, s.Concurrency.Actor, s.Concurrency.Reason)
			} else {
				fmt.Print(" as in the file")
			}
			fmt.Println()
		}
	}
	show()
	outage := config.Change{Actor: "ada", Reason: "their outage", For: time.Hour}
	fmt.Println(bus.Pause("mails", outage), bus.SetConcurrency("mails", 2, config.Change{Actor: "bob", Reason: "they throttle"}))
	if err := bus.Publisher("mails").Publish(ctx, &queue.Message{Body: []byte("a mail")}); err != nil {
		fmt.Println(err)
	}
	show()
	err = bus.Resume("mails", config.Change{Actor: "ada", Reason: "it's over"})
	<-sent
	fmt.Println(err)
	stop()
	fmt.Println(<-ended, bus.Close(context.Background()))
	// Output:
	// mails: paused false, concurrency as in the file
	// <nil> <nil>
	// mails: paused true, concurrency 2, as bob: they throttle
	// sent a mail
	// <nil>
	// <nil> <nil>
}

// What Kubernetes asks: a process that drains isn't given more, but isn't killed either.
func ExampleBus_Ready() {
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	f, err := config.Parse("queues.yaml", []byte("backend: memory\nqueues: {mails: {}}"), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	bus, err := config.OpenFile(f, config.Backends{"memory": memory.New(&memory.Options{Create: true})}, &config.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return
	}
	handled := make(chan bool)
	bus.Handle("mails", func(context.Context, *queue.Delivery) error { close(handled); return nil })
	mux := http.NewServeMux()
	mux.Handle("/live", bus.Live())
	mux.Handle("/ready", bus.Ready())
	ask := func(path string) {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		fmt.Print(path, " ", w.Code, " ", w.Body)
	}
	ask("/live")
	ask("/ready")
	ended := make(chan error)
	go func() { ended <- bus.Run(ctx) }()
	if err := bus.Publisher("mails").Publish(ctx, &queue.Message{Body: []byte("a mail")}); err != nil {
		fmt.Println(err)
	}
	<-handled
	ask("/ready")
	stop()
	fmt.Println(<-ended)
	ask("/ready")
	fmt.Println(bus.Close(context.Background()))
	ask("/live")
	// Output:
	// /live 200 {"ok":true,"queues":[{"queue":"mails","status":"stopped"}]}
	// /ready 503 {"ok":false,"why":"not running","queues":[{"queue":"mails","status":"stopped"}]}
	// /ready 200 {"ok":true}
	// <nil>
	// /ready 503 {"ok":false,"why":"not running","queues":[{"queue":"mails","status":"stopped"}]}
	// <nil>
	// /live 503 {"ok":false,"why":"closed","queues":[{"queue":"mails","status":"stopped"}]}
}

// What a handler rejects, or fails too often, is kept in the dead-letter queue
// with its history.
func ExampleBus_Queue() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	f, err := config.Parse("queues.yaml", []byte(`
backend: memory
ensure: true
queues:
  crm-leads: {dead_letter: {queue: crm-leads-dlq}}
  crm-leads-dlq: {}
`), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	broker := memory.New(nil)
	bus, err := config.OpenFile(f, config.Backends{"memory": broker}, &config.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return
	}
	bus.Handle("crm-leads", func(context.Context, *queue.Delivery) error {
		return queue.Reject(errors.New("no such customer"))
	})
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error)
	go func() { ended <- bus.Run(running) }()
	if err := bus.Publisher("crm-leads").Publish(ctx, &queue.Message{ID: "lead-7", Body: []byte("Ada")}); err != nil {
		fmt.Println(err)
	}
	if err := broker.WaitIdle(ctx); err != nil {
		fmt.Println(err)
	}

	dead, err := bus.Queue(ctx, "crm-leads-dlq")
	if err != nil {
		fmt.Println(err)
		return
	}
	if in, ok := queue.As[queue.Inspector](dead); ok {
		letters, err := in.Peek(ctx, 10)
		for _, d := range letters {
			fmt.Printf("%s from %s: %s\n", d.ID, d.DeadLetter.Source.Name, d.DeadLetter.Error)
		}
		if err != nil {
			fmt.Println(err)
		}
	}
	stop()
	fmt.Println(<-ended, bus.Close(ctx))
	// Output:
	// lead-7 from crm-leads: no such customer
	// <nil> <nil>
}
