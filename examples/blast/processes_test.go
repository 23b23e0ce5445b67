//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
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
	dir, once, binary := t.TempDir(), sync.Once{}, ""
	for server, variable := range map[string]string{
		"sqstest":    "", // in this process
		"LocalStack": "ANYQUEUE_TEST_SQS_LOCALSTACK",
		"ElasticMQ":  "ANYQUEUE_TEST_SQS_ELASTICMQ",
	} {
		t.Run(server, func(t *testing.T) {
			t.Parallel()
			endpoint := os.Getenv(variable)
			switch {
			case variable == "" && testing.Short():
				t.Skip("it takes a quarter of a minute")
			case variable == "":
				fake := sqstest.New(&sqstest.Options{EndCutPolls: true}) // else a dead process's poll adds another lease
				t.Cleanup(fake.Close)
				var err error
				endpoint, err = fake.Start("")
				require.NoError(t, err)
			case endpoint == "":
				t.Skipf("%s is empty", variable)
			}
			once.Do(func() { binary = build(t, dir) })
			for _, policy := range []string{"hold", "resend"} {
				t.Run(policy, func(t *testing.T) {
					t.Parallel()
					killed(t, binary, endpoint, policy)
				})
			}
		})
	}
}

// build returns the program's binary.
func build(t *testing.T, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "blast")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", file, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return file
}

const (
	killedCustomers = 1000
	killedSender    = 32 // handlers: what queues.yaml says
)

// killed runs a blast whose processes are killed, and judges it.
func killed(t *testing.T, binary, endpoint, policy string) {
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
		env:      func(name string) (string, bool) { return "here", name == "QUEUE_BACKEND" },
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
	var processes []*process
	start := func(role, endpoint string) *process {
		d := newDoor(t, partiesURL)
		p := startProcess(t, binary, []string{"-role", role, "-parties", d.url, "-in-doubt", policy},
			"QUEUE_BACKEND=sqs", "QUEUE_PREFIX="+prefix, "AWS_ENDPOINT_URL_SQS="+endpoint,
			"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test")
		p.door = d
		processes = append(processes, p)
		return p
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
		watch.goOn()
		senders[i].door.close(t) // the last that it has asked for is done
		watch.killed()
		senders[i] = start(roleSender, endpoint)
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
	lost := lostLeases(processes)
	watch.check(t, r, policy == "resend", lost)
	checkOutcomes(t, conductor.fakes)
	told := conductor.fakes.Activities(mailSent, mailSkipped, mailInDoubt)
	assert.GreaterOrEqual(t, told, r.Unique-r.DeadLettered, "an activity for each customer")
	assert.LessOrEqual(t, told, r.Unique-r.DeadLettered+len(lost), "and another one only where two senders had the same mail")
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
			// In doubt when its sender has died before it could note the refusal: watch.check
			// has asked for the reason.
			assert.Contains(t, []string{"dead_lettered", "in_doubt"}, o.Fate, o.Customer)
			assert.Zero(t, o.Mails, o.Customer)
		default:
			assert.Contains(t, []string{"sent", "in_doubt"}, o.Fate, o.Customer)
		}
	}
}

// lostLeases are the messages, by id, of which a process says that it lost their
// lease: on a machine that's too busy for it to renew them in time.
func lostLeases(ps []*process) map[string]bool {
	lost := map[string]bool{}
	line := regexp.MustCompile(`msg="lease lost" queue=\S+ id=(\S+)`)
	for _, p := range ps {
		for _, m := range line.FindAllStringSubmatch(p.out.String(), -1) {
			lost[m[1]] = true
		}
	}
	return lost
}

// process is a part of the program in a process of its own.
type process struct {
	cmd  *exec.Cmd
	door *door
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
