package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/anyqueue/anyqueue/examples/blast/parties"
)

// Roles, each of which can be a process of its own.
const (
	roleAll        = "all"
	roleListSender = "list-sender"
	roleSender     = "sender"
	roleLogger     = "logger"
	roleParties    = "parties"
)

var roles = []string{roleAll, roleListSender, roleSender, roleLogger, roleParties}

// options are the flags.
type options struct {
	role    string
	listen  string // of parties
	parties string // URL, for the other roles
	n       int
	file    string
	resend  bool
	die     bool
	flood   int
	outage  time.Duration
	timeout time.Duration
	fates   string // file
	verbose bool

	// For tests.
	calm          bool          // no failures but the outage
	activityTakes time.Duration // how long the activity service works at each request
}

// has says whether this process plays a role.
func (o *options) has(role string) bool { return o.role == role || o.role == roleAll }

// errUsage was explained to the user already.
var errUsage = errors.New("usage")

func parseOptions(args []string, out io.Writer) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("blast", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&o.role, "role", roleAll, "part to run: "+strings.Join(roles, ", "))
	flags.StringVar(&o.listen, "listen", "127.0.0.1:7070", "address of the fake third parties, in the role parties")
	flags.StringVar(&o.parties, "parties", "http://127.0.0.1:7070", "URL of the fake third parties, in the roles of workers")
	flags.IntVar(&o.n, "n", 10_000, "number of customers to make up")
	flags.StringVar(&o.file, "customers", "", "CSV file with the customers instead: id,email,name and opted_out, if there")
	inDoubt := flags.String("in-doubt", "hold", "what to do with mails that may have been sent: hold or resend")
	flags.BoolVar(&o.die, "die", true, "let the list sender die in the middle of its fan-out, once")
	flood := flags.Bool("flood", false, "fill activity-logger with 100,000 activities before the blast")
	flags.DurationVar(&o.outage, "outage", 3*time.Second, "how long the mail API is down")
	flags.DurationVar(&o.timeout, "timeout", 10*time.Minute, "when to give up waiting for the blast to end")
	flags.StringVar(&o.fates, "outcomes", "", "CSV file to write what became of each customer to: customer,outcome,mails")
	flags.BoolVar(&o.verbose, "v", false, "log what the consumers do, to stderr")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, err
		}
		return nil, errUsage
	}

	var problem string
	switch {
	case flags.NArg() > 0:
		problem = "there are no arguments besides flags: " + flags.Arg(0)
	case !slices.Contains(roles, o.role):
		problem = fmt.Sprintf("-role %s isn't one of %s", o.role, strings.Join(roles, ", "))
	case *inDoubt != "hold" && *inDoubt != "resend":
		problem = fmt.Sprintf("-in-doubt %s is neither hold nor resend", *inDoubt)
	case o.n < 1:
		problem = "-n must be at least 1"
	case o.outage < 0 || o.timeout <= 0:
		problem = "-outage and -timeout can't be negative"
	}
	if problem != "" {
		_, _ = fmt.Fprintln(out, "blast: "+problem) // stderr: nowhere else to complain
		return nil, errUsage
	}
	o.resend = *inDoubt == "resend"
	if *flood {
		o.flood = 100_000
	}
	return o, nil
}

// input is the list of customers.
func (o *options) input() (*parties.Input, error) {
	if o.file == "" {
		return parties.Generate(o.n), nil
	}
	f, err := os.Open(o.file)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it's only read
	in, err := parties.ReadCSV(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.file, err)
	}
	return in, nil
}
