//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/examples/blast/parties"
	"github.com/anyqueue/anyqueue/examples/internal/backends"
	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
	"github.com/anyqueue/anyqueue/queue/config"
	"github.com/anyqueue/anyqueue/sqs"
	"github.com/anyqueue/anyqueue/sqs/awsclient"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// The blast as several processes on one broker, of which the list sender and
// both senders are killed with SIGKILL at what they're doing, and started again.
// Who judges, the third parties, survives in this process.
func TestProcessesThatAreKilledLoseNobody(t *testing.T) {
	t.Parallel()
	for server, tc := range map[string]struct {
		variable string // with the endpoint; empty: a server in this process
		lease    string // shorter ones are for servers that aren't slow at times
	}{
		"sqstest":    {"", "3s"},
		"LocalStack": {"ANYQUEUE_TEST_SQS_LOCALSTACK", "10s"},
		"ElasticMQ":  {"ANYQUEUE_TEST_SQS_ELASTICMQ", "10s"},
	} {
		t.Run(server, func(t *testing.T) {
			t.Parallel()
			endpoint := os.Getenv(tc.variable)
			switch {
			case tc.variable == "" && testing.Short():
				t.Skip("it takes a quarter of a minute")
			case tc.variable == "":
				fake := sqstest.New(nil)
				t.Cleanup(fake.Close)
				var err error
				endpoint, err = fake.Start("")
				require.NoError(t, err)
			case endpoint == "":
				t.Skipf("%s is empty", tc.variable)
			}
			binary := build(t)
			for _, policy := range []string{"hold", "resend"} {
				t.Run(policy, func(t *testing.T) {
					t.Parallel()
					killed(t, binary, endpoint, tc.lease, policy)
				})
			}
		})
	}
}

var built struct {
	once sync.Once
	file string
	err  error
}

// build returns the program's binary.
func build(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		// Other tests use it too: it isn't this one's to remove.
		dir, err := os.MkdirTemp("", "blast") //nolint:usetesting // see above
		if err != nil {
			built.err = err
			return
		}
		built.file = filepath.Join(dir, "blast")
		out, err := exec.CommandContext(context.Background(), "go", "build", "-o", built.file, ".").CombinedOutput() //nolint:usetesting // see above
		if err != nil {
			built.err = fmt.Errorf("%w: %s", err, out)
		}
	})
	require.NoError(t, built.err)
	return built.file
}

const (
	killedCustomers = 1000
	killedSender    = 32 // handlers: what queues.yaml says
)

// killed runs a blast whose processes are killed, and judges it.
func killed(t *testing.T, binary, endpoint, lease, policy string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	prefix := "killed-" + uuid.NewString()[:8] + "-"
	client, err := awsclient.New(ctx, &awsclient.Options{Endpoint: endpoint})
	require.NoError(t, err)
	t.Cleanup(func() { deleteQueues(t, client, prefix) })

	watch := newWatch()
	urls := make(chan string, 1)
	out := &output{}
	at := regexp.MustCompile(`third parties at (http://\S+)`)
	out.onLine = func(line string) {
		if m := at.FindStringSubmatch(line); m != nil {
			urls <- m[1]
		}
	}
	opts, err := parseOptions([]string{
		"-role", roleParties, "-listen", "127.0.0.1:0", "-n", fmt.Sprint(killedCustomers), "-outage", "400ms", "-in-doubt", policy,
		"-timeout", "2m",
	}, io.Discard)
	require.NoError(t, err)
	conductor := &program{
		opts: opts, log: slog.New(slog.DiscardHandler), time: newTimeline(out), onMail: watch.mail, onChange: watch.change,
		backends: config.Backends{"here": backends.Prefixed(sqs.New(client, nil), prefix)},
		env: func(name string) (string, bool) {
			v, ok := map[string]string{"QUEUE_BACKEND": "here", "BLAST_LEASE": lease}[name]
			return v, ok
		},
	}
	type verdict struct {
		lost bool
		err  error
	}
	judged := make(chan verdict, 1)
	go func() {
		lost, err := conductor.run(ctx)
		judged <- verdict{lost, err}
	}()

	var partiesURL string
	select {
	case partiesURL = <-urls:
	case v := <-judged:
		t.Fatalf("the third parties have ended: %v\n%s", v.err, out)
	}
	start := func(role, endpoint string) *process {
		return startProcess(t, binary, []string{"-role", role, "-parties", partiesURL, "-in-doubt", policy},
			"QUEUE_BACKEND=sqs", "QUEUE_PREFIX="+prefix, "BLAST_LEASE="+lease, "AWS_ENDPOINT_URL_SQS="+endpoint,
			"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test")
	}
	// In the middle of its fan-out the list sender's requests stop.
	gate := newGate(t, endpoint, 40)
	lists := start(roleListSender, gate.url)
	senders := []*process{start(roleSender, endpoint), start(roleSender, endpoint)}
	logger := start(roleLogger, endpoint)

	wait := func(what string, event <-chan struct{}) {
		t.Helper()
		select {
		case <-event:
		case v := <-judged:
			t.Fatalf("it was over before %s: %+v\n%s", what, v, out)
		case <-ctx.Done():
			t.Fatalf("waiting for %s: %v\n%s", what, ctx.Err(), out)
		}
	}
	wait("the list sender's fan-out", gate.reached)
	lists.kill(t)
	gate.open()
	lists = start(roleListSender, endpoint)
	for i := range senders {
		// While the mail API answers nobody, both senders get to more mails than
		// one of them can have: each is at some when it dies.
		stopped := watch.stopAfter(50 + 100*i)
		wait("mails", stopped)
		wait("mails under way", watch.underWay(killedSender+1))
		senders[i].kill(t)
		watch.killed()
		senders[i] = start(roleSender, endpoint)
		watch.goOn()
	}

	var v verdict
	select {
	case v = <-judged:
	case <-ctx.Done():
		t.Fatalf("no verdict: %v\n%s", ctx.Err(), out)
	}
	t.Log(out.String())
	drain(t, append(senders, lists, logger))
	require.NoError(t, v.err)
	assert.False(t, v.lost)
	r := lastLine(t, out.String())
	checkSum(t, r)
	checkOutcomes(t, conductor.fakes)
	watch.check(t, r, policy == "resend")
	assert.Equal(t, r.Unique-r.DeadLettered, conductor.fakes.Activities(mailSent, mailSkipped, mailInDoubt), "one activity per customer")
}

// checkOutcomes compares what became of each customer with what the list says
// should.
func checkOutcomes(t *testing.T, fakes *parties.Parties) {
	t.Helper()
	in := parties.Generate(killedCustomers)
	outcomes := fakes.Judge.Outcomes()
	assert.Len(t, outcomes, in.Unique())
	for _, o := range outcomes {
		c := in.Customers[o.Customer]
		switch {
		case c == nil || c.OptedOut || strings.Contains(c.Email, "+"): // unknown, or a bad address
			assert.Equal(t, parties.Outcome{Customer: o.Customer, Fate: "skipped"}, o)
		case strings.Contains(c.Email, ".."):
			assert.Equal(t, parties.Outcome{Customer: o.Customer, Fate: "dead_lettered"}, o)
		default:
			assert.Contains(t, []string{"sent", "in_doubt"}, o.Fate, o.Customer)
		}
	}
}

// watch follows the mail API and what the senders note about their mails. It may
// be used concurrently.
type watch struct {
	mu       sync.Mutex
	cond     *sync.Cond
	accepted int
	stop     int // mails, after which the API answers nobody; 0: none
	stopped  chan struct{}
	waiting  int // for that many mails under way
	enough   chan struct{}

	open   map[string]bool     // mails begun and not ended, by id
	story  map[string][]string // of each mail: begun, mail, mail lost, kill, done, in_doubt, ...
	doubts map[string]bool     // mails that were under way at a kill
	cut    map[string]bool     // mails whose answer the network lost
}

func newWatch() *watch {
	w := &watch{open: map[string]bool{}, story: map[string][]string{}, doubts: map[string]bool{}, cut: map[string]bool{}}
	w.cond = sync.NewCond(&w.mu)
	return w
}

func (w *watch) mail(r thirdparty.Request) {
	if !r.Handled() {
		return
	}
	form, err := url.ParseQuery(string(r.Body))
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	id := form.Get("v:mail-id")
	w.story[id] = append(w.story[id], "mail")
	if r.Fault == thirdparty.Lost {
		w.cut[id] = true
	}
	w.accepted++
	for w.stop > 0 && w.accepted >= w.stop {
		if w.stopped != nil {
			close(w.stopped)
			w.stopped = nil
		}
		w.cond.Wait()
	}
}

func (w *watch) change(key, value string) {
	id, ok := strings.CutPrefix(key, parties.MailPrefix)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.story[id] = append(w.story[id], value)
	if value == sendBegun {
		w.open[id] = true
	} else {
		delete(w.open, id)
	}
	if w.enough != nil && len(w.open) >= w.waiting {
		close(w.enough)
		w.enough = nil
	}
}

// stopAfter makes the mail API answer nobody once it has so many mails. The
// channel is closed then.
func (w *watch) stopAfter(mails int) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stop, w.stopped = mails, make(chan struct{})
	return w.stopped
}

// underWay is closed when so many mails are begun and not ended.
func (w *watch) underWay(mails int) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	enough := make(chan struct{})
	if len(w.open) >= mails {
		close(enough)
		return enough
	}
	w.waiting, w.enough = mails, enough
	return enough
}

// killed notes that a sender has died just now.
func (w *watch) killed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.open {
		w.doubts[id] = true
		w.story[id] = append(w.story[id], "kill")
	}
}

// goOn makes the mail API answer again.
func (w *watch) goOn() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stop = 0
	w.cond.Broadcast()
}

// check explains every mail that was sent twice, and every one that's in doubt.
func (w *watch) check(t *testing.T, r parties.Result, resend bool) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	assert.NotEmpty(t, w.doubts, "the kills hit senders at work")
	twice, held := 0, 0
	for id, story := range w.story {
		mails, why := 0, ""
		for _, event := range story {
			switch event {
			case "mail":
				if mails++; mails > 1 {
					twice++
					assert.NotEqual(t, sendDone, why, "sent again although it was known to be sent: %s %v", id, story)
				}
			case sendDone:
				why = sendDone
			case sendInDoubt:
				held++
			}
		}
		if mails > 1 || story[len(story)-1] == sendInDoubt {
			assert.True(t, w.doubts[id] || w.cut[id], "neither a kill nor a lost answer explains %s %v", id, story)
		}
	}
	assert.Equal(t, twice, r.DuplicateMails)
	if !resend {
		assert.Zero(t, twice, "what's in doubt is held")
		assert.Greater(t, held, len(w.cut), "some because their sender was killed")
		return
	}
	assert.Zero(t, r.InDoubt)
	assert.Positive(t, twice, "the price of it")
}

// gate is a way to the broker that closes after so many requests that publish.
type gate struct {
	url     string
	reached chan struct{} // closed when the gate has closed

	mu     sync.Mutex
	left   int
	closed chan struct{} // closed when the gate opens again
}

func newGate(t *testing.T, endpoint string, requests int) *gate {
	t.Helper()
	to, err := url.Parse(endpoint)
	require.NoError(t, err)
	g := &gate{reached: make(chan struct{}), left: requests, closed: make(chan struct{})}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = to.Host
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }, // its client is dead
	}
	server, err := thirdparty.Serve("", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("X-Amz-Target"), "SendMessage") && !g.pass(r.Context()) {
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	require.NoError(t, err)
	t.Cleanup(func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		assert.NoError(t, server.Close(now))
	})
	g.url = server.URL
	return g
}

// pass waits at the closed gate, and reports whether the caller is still there.
func (g *gate) pass(ctx context.Context) bool {
	g.mu.Lock()
	g.left--
	if g.left == 0 {
		close(g.reached)
	}
	through := g.left > 0
	g.mu.Unlock()
	if through {
		return true
	}
	select {
	case <-g.closed:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

func (g *gate) open() { close(g.closed) }

// process is a part of the program in a process of its own.
type process struct {
	cmd  *exec.Cmd
	out  *output
	done chan error
}

func startProcess(t *testing.T, binary string, args []string, env ...string) *process {
	t.Helper()
	p := &process{cmd: exec.CommandContext(t.Context(), binary, args...), out: &output{}, done: make(chan error, 1)} //nolint:gosec // built by this test
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	require.NoError(t, p.cmd.Start())
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() }) // a process that has ended already is no error
	return p
}

// kill is SIGKILL; it returns when the process is gone.
func (p *process) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Kill(), "it was to run until now: %s", p.out)
	<-p.done
}

// drain is SIGTERM: the processes end by themselves, and without a complaint.
func drain(t *testing.T, ps []*process) {
	t.Helper()
	for _, p := range ps {
		require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM), "it was to run until now: %s", p.out)
	}
	late := time.After(30 * time.Second)
	for _, p := range ps {
		select {
		case err := <-p.done:
			assert.NoError(t, err, "%s", p.out)
			assert.Contains(t, p.out.String(), "drained")
		case <-late:
			t.Fatalf("not drained: %s", p.out)
		}
	}
}

// deleteQueues leaves the broker as it was.
func deleteQueues(t *testing.T, client *awssqs.Client, prefix string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) //nolint:usetesting // the test's context is over in a cleanup
	defer cancel()
	list, err := client.ListQueues(ctx, &awssqs.ListQueuesInput{QueueNamePrefix: &prefix})
	if !assert.NoError(t, err) {
		return
	}
	for _, u := range list.QueueUrls {
		_, err := client.DeleteQueue(ctx, &awssqs.DeleteQueueInput{QueueUrl: &u})
		assert.NoError(t, err)
	}
}
