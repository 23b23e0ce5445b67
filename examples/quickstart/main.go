// Command quickstart is the program of the README's first page: one queue, one
// worker, one message. With QUEUE_BACKEND=sqs the queue is in SQS, with
// QUEUE_BACKEND=pubsub in Google Cloud Pub/Sub.
package main

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
	"github.com/anyqueue/anyqueue/sqs"
	"github.com/anyqueue/anyqueue/sqs/awsclient"
)

//go:embed queues.yaml
var queuesFile []byte

// A Lead is what a form sends.
type Lead struct {
	ID    string
	Email string
}

// A CRM is what the worker calls.
type CRM interface {
	Upsert(ctx context.Context, lead Lead) (status int, err error)
}

// updateLead is the worker: what it returns says what becomes of the message.
func updateLead(crm CRM) queue.Handler {
	return queue.JSON(func(ctx context.Context, lead Lead, _ *queue.Delivery) error {
		if !strings.Contains(lead.Email, "@") {
			return queue.Reject(fmt.Errorf("lead %s has no address", lead.ID)) // dead-letter queue, now
		}
		status, err := crm.Upsert(ctx, lead)
		if err == nil && status >= http.StatusInternalServerError {
			err = fmt.Errorf("CRM: status %d", status)
		}
		return err // nil: done; an error: again, after a backoff
	})
}

func newBus(systems config.Backends, crm CRM, log *slog.Logger) (*config.Bus, error) {
	file, err := config.Parse("queues.yaml", queuesFile, os.LookupEnv)
	if err != nil {
		return nil, err
	}
	bus, err := config.OpenFile(file, systems, &config.Options{Logger: log})
	if err != nil {
		return nil, err
	}
	bus.Handle("crm-leads", updateLead(crm))
	return bus, nil
}

// printer stands for a CRM.
type printer struct{ done func() }

func (p printer) Upsert(_ context.Context, lead Lead) (int, error) {
	fmt.Println("CRM has", lead.Email)
	p.done()
	return http.StatusCreated, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, stop); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, stop func()) error {
	// Short polls, as this program ends after one message: the next run would have
	// to wait for what a poll of this one may take. A worker keeps the default.
	const wait = time.Second
	systems := config.Backends{ // QUEUE_BACKEND chooses
		"memory": memory.New(nil),
		"sqs":    awsclient.Backend(&awsclient.Options{SQS: &sqs.Options{Wait: wait}}),
		"pubsub": pubsub.NewBackend(&pubsub.Options{Wait: wait}),
	}
	bus, err := newBus(systems, printer{done: stop}, slog.Default())
	if err != nil {
		return err
	}
	lead := Lead{ID: "1", Email: "ada@example.com"}
	err = queue.PublishJSON(ctx, bus.Publisher("crm-leads"), lead, queue.WithID(lead.ID))
	if err != nil {
		return err // not durable: tell whoever asked
	}
	return bus.Run(ctx) // until SIGTERM ends ctx; then it drains
}
