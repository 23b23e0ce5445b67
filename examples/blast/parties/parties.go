package parties

import (
	"fmt"
	"net/http"
	"time"

	"github.com/anyqueue/anyqueue/examples/internal/database"
	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
)

// How the application's database says that a mail is in doubt: the value
// InDoubt under the key MailPrefix + mail id.
const (
	MailPrefix = "mail/"
	InDoubt    = "in_doubt"
)

// Options are the settings of New.
type Options struct {
	Resend bool // mails in doubt are sent again

	// MailID gives the id under which the application's database knows the mail
	// to a customer.
	MailID func(customer string) string

	// Outage is how long the mail API is down, once a third of the mails was
	// asked for. 0: never.
	Outage time.Duration

	// Calm leaves out all other failures.
	Calm bool

	// ActivityTakes is how long the activity service works at each request.
	ActivityTakes time.Duration

	// Event is told what a person may want to know. It must not block.
	Event func(text string)

	// Mail is told each request to the mail API, and Change each change of the
	// application's database, in order. While Mail blocks, the API answers nobody.
	// Default: nobody is told.
	Mail   func(thirdparty.Request)
	Change func(key, value string)
}

// Parties are all fakes together.
type Parties struct {
	Judge    *Judge
	Database *database.Memory

	handler    http.Handler
	activities *activities
	mails      *thirdparty.Party
}

// Paths below which the parties are served.
const (
	CustomersPath = "/crm"
	CheckerPath   = "/kickbox"
	MailPath      = "/mailgun"
	ActivityPath  = "/activity"
	DatabasePath  = "/database"
)

// New returns the parties of a blast to the list in.
func New(in *Input, o Options) *Parties {
	if o.Event == nil {
		o.Event = func(string) {}
	}
	p := &Parties{
		Judge:      newJudge(in, o),
		activities: &activities{takes: o.ActivityTakes, seen: map[string]bool{}, kind: map[string]int{}},
	}
	p.Database = database.NewMemory(func(key, value string) {
		p.Judge.sawChange(key, value)
		if o.Change != nil {
			o.Change(key, value)
		}
	})

	money := &billing{credit: in.Unique() + 1000, reserved: map[string]reservation{}}
	bills := thirdparty.New(money.handler(), o.faults(1, thirdparty.Faults{LostOneIn: 2, Observe: p.Judge.sawBilling}))
	people := thirdparty.New(crm{in}.handler(), o.faults(2, thirdparty.Faults{
		Rules:     []thirdparty.Rule{{Fault: "error", OneIn: 100, Answer: thirdparty.Status(http.StatusBadGateway, `{}`)}},
		LostOneIn: 100, Observe: p.Judge.sawCRM,
	}))
	checker := thirdparty.New(http.HandlerFunc(checkAddress), o.faults(3, thirdparty.Faults{
		Rules: []thirdparty.Rule{
			{Fault: "timeout", OneIn: 60, Answer: checkTimesOut},
			{Fault: "throttled", OneIn: 200, Answer: thirdparty.TooManyRequests(time.Second)},
		},
		LostOneIn: 100, Observe: p.Judge.sawCheck,
	}))
	p.mails = thirdparty.New((&mailAPI{}).handler(), o.mailFaults(in, p.Judge))
	activity := thirdparty.New(p.activities.handler(), o.faults(5, thirdparty.Faults{
		Rules:     []thirdparty.Rule{{Fault: "error", OneIn: 200, Answer: thirdparty.Status(http.StatusInternalServerError, `{}`)}},
		LostOneIn: 100,
	}))

	service := http.NewServeMux()
	service.Handle("GET /accounts/{account}", bills)
	service.Handle("POST /accounts/{account}/reservations", bills)
	service.Handle("/", people)
	all := http.NewServeMux()
	for path, h := range map[string]http.Handler{
		CustomersPath: service, CheckerPath: checker, MailPath: p.mails, ActivityPath: activity, DatabasePath: p.Database.Handler(),
	} {
		all.Handle(path+"/", http.StripPrefix(path, h))
	}
	p.handler = all
	return p
}

// ServeHTTP implements http.Handler.
func (p *Parties) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.handler.ServeHTTP(w, r) }

// Activities returns how many different activities of the kinds were logged.
func (p *Parties) Activities(kinds ...string) int { return p.activities.count(kinds...) }

// Mails returns the log of the mail API.
func (p *Parties) Mails() []thirdparty.Request { return p.mails.Log() }

func (o Options) faults(seed uint64, f thirdparty.Faults) thirdparty.Faults {
	if o.Calm {
		return thirdparty.Faults{Observe: f.Observe}
	}
	f.Seed = seed
	return f
}

func (o Options) mailFaults(in *Input, j *Judge) thirdparty.Faults {
	f := o.faults(4, thirdparty.Faults{
		Rules: []thirdparty.Rule{
			{Fault: "throttled", OneIn: 100, Answer: thirdparty.TooManyRequests(time.Second)},
			{Fault: "error", OneIn: 60, Answer: thirdparty.Status(http.StatusInternalServerError, `{"message":"Internal Server Error"}`)},
		},
		LostOneIn: 100, SlowOneIn: 200, SlowFor: 200 * time.Millisecond,
		Observe: func(r thirdparty.Request) {
			j.sawMail(r)
			if o.Mail != nil {
				o.Mail(r)
			}
		},
	})
	if o.Outage > 0 {
		f.Outages = []thirdparty.Window{{AfterRequests: in.Unique() / 3, For: o.Outage}}
		var began time.Time
		f.OnOutage = func(e thirdparty.OutageEvent) {
			if e.Began {
				began = e.At
				o.Event("mail API: an outage begins, it answers 503 to everything")
				return
			}
			o.Event(fmt.Sprintf("mail API: back after %.1f s, in which it refused %d requests", e.At.Sub(began).Seconds(), e.Refused))
		}
	}
	return f
}
