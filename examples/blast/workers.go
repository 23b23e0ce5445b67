package main

import (
	_ "embed"
	"log/slog"
	"net/http"
	"time"

	"github.com/anyqueue/anyqueue/examples/blast/parties"
	"github.com/anyqueue/anyqueue/examples/internal/database"
	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

//go:embed queues.yaml
var queuesFile []byte

// openBus reads queues.yaml, with the variables of the environment that lookup
// finds. Nothing is connected yet.
func openBus(lookup func(string) (string, bool), b config.Backends, log *slog.Logger) (*config.Bus, *config.File, error) {
	file, err := config.Parse("queues.yaml", queuesFile, lookup)
	if err != nil {
		return nil, nil, err
	}
	bus, err := config.OpenFile(file, b, &config.Options{Logger: log})
	return bus, file, err
}

// services are the third parties that the workers call, and the program's own
// database.
type services struct {
	crm        *CRM
	addresses  *AddressChecker
	mailgun    *Mailgun
	activities *ActivityService
	db         database.Database
}

// newServices returns clients of the services at url.
func newServices(url string, transport http.RoundTripper) *services {
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	at := func(name, path string) service { return service{name: name, url: url + path, client: client} }
	return &services{
		crm:       &CRM{at("customer service", parties.CustomersPath)},
		addresses: &AddressChecker{service: at("address checker", parties.CheckerPath), key: parties.CheckerKey},
		mailgun: &Mailgun{
			service: at("mail API", parties.MailPath),
			domain:  parties.MailDomain, key: parties.MailKey, from: "Acme Shop <news@" + parties.MailDomain + ">",
		},
		activities: &ActivityService{at("activity service", parties.ActivityPath)},
		db:         &database.Client{URL: url + parties.DatabasePath, HTTP: client},
	}
}

// handleLists makes bus run the list sender.
func handleLists(bus *config.Bus, file *config.File, s *services, mails queue.Publisher) {
	sender := &ListSender{CRM: s.crm, Mails: mails}
	bus.Handle(listQueue, queue.JSON(sender.Handle), idempotent(s.db, file.Queue(listQueue)))
}

// handleMails makes bus run the customer sender. While the mail API is down the
// circuit breaker keeps messages where they are, rather than failing each.
func handleMails(bus *config.Bus, file *config.File, s *services, resend bool, onBreak func(middleware.BreakerChange), log *slog.Logger) {
	sender := &CustomerSender{
		CRM: s.crm, Addresses: s.addresses, Mailgun: s.mailgun, Log: &SendLog{s.db},
		Activities: bus.Publisher(activityQueue), Resend: resend,
	}
	breaker := middleware.CircuitBreaker(middleware.CircuitBreakerOptions{
		Name: "mail API", If: s.mailgun.isDown, Failures: 8,
		OpenFor: 500 * time.Millisecond, MaxOpenFor: time.Second, OnChange: onBreak, Logger: log,
	})
	bus.Handle(mailQueue, queue.JSON(sender.Handle), breaker, idempotent(s.db, file.Queue(mailQueue)))
}

// handleActivities makes bus run the activity logger.
func handleActivities(bus *config.Bus, s *services) {
	logger := &ActivityLogger{Service: s.activities}
	bus.Handle(activityQueue, queue.JSON(logger.Handle))
}

// idempotent skips what was handled already: the repeats of a fan-out. What a
// process had begun that has died is free again when its messages are.
func idempotent(db database.Database, q *config.Queue) queue.Middleware {
	return middleware.Idempotent(database.Repeats{DB: db}, middleware.IdempotentOptions{Hold: q.Lease, AskAgain: time.Second})
}
