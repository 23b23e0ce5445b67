// Command benchmarks measures what this library costs beside a floor and its
// peers, in one run: in memory, on SQS and on Pub/Sub, 1 KiB bodies, 3 attributes.
// Figures are medians of interleaved rounds, so that a machine that's busy for a
// while is so for all of them. The last line is the result as JSON.
//
// In memory the floor is the least that a queue with leases can do (floor.go);
// the peers are Watermill's gochannel and gocloud.dev's mempubsub. On SQS the
// floor is a loop on the AWS SDK as one writes it by hand (sqs_raw.go), the peer
// gocloud.dev's awssnssqs; every request goes over a link that counts it and
// makes it longer (sqs_link.go). Watermill's package for SQS isn't among them. On
// Pub/Sub, which is Google's emulator, the floor is the generated client used by
// hand (pubsub_raw.go); the peers are gocloud.dev's gcppubsub, Google's high-level
// client and Watermill's package. It's a module of its own, so that they're no
// dependencies of the library.
//
// It exits with 0 also when a target isn't reached, as a busy machine decides
// that too, and with 1 when something couldn't be measured.
package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"time"
)

// options are what's measured, and for how long.
type options struct {
	only    string
	systems string
	rounds  int
	window  int

	throughput time.Duration // of one round
	together   bool          // rounds of throughput in this process, as profiles need it
	latency    time.Duration // of one round
	queued     int           // messages
	idleQueues int
	idle       time.Duration
	deliveries int // in one round of the engine alone

	server      *sqsServer
	sqsRounds   int
	sqsRound    time.Duration // of one round of publishing
	sqsMessages int           // to be consumed in one round
	sqsLone     int           // messages
	sqsTrickle  time.Duration // of one round
	sqsIdle     time.Duration

	hundredIdle time.Duration // how long a hundred and twenty queues are idle
	hundredBusy time.Duration // of one round
	redriven    int           // dead letters, in memory
	redrivenSQS int

	emulator       *emulator
	pubsubRounds   int
	pubsubWarm     time.Duration // how long an emulator is warmed up
	pubsubRound    time.Duration // of one round of publishing
	pubsubMessages int           // to be consumed in one round
	pubsubConsume  time.Duration // that it may take; then those count that were handled
	pubsubLone     int           // messages
	pubsubMany     int           // calls
	pubsubTrickle  time.Duration // of one round
	pubsubPulls    int           // that raw-unary has at once
	pubsubStreams  int           // that raw-stream has
}

func full() options {
	return options{
		rounds: 7, window: 16384,
		throughput: time.Second, latency: 2 * time.Second, queued: 1_000_000,
		idleQueues: 1000, idle: 5 * time.Second, deliveries: 500_000,

		server: &sqsServer{}, sqsRounds: 3,
		sqsRound: 2 * time.Second, sqsMessages: 20_000, sqsLone: 200, sqsTrickle: 3 * time.Second, sqsIdle: 62 * time.Second,

		hundredIdle: time.Minute, hundredBusy: 2 * time.Second, redriven: 100_000, redrivenSQS: 5000,

		emulator: &emulator{}, pubsubRounds: 5, pubsubWarm: 4 * time.Second,
		pubsubRound: time.Second, pubsubMessages: 30_000, pubsubConsume: 4 * time.Second, pubsubLone: 200, pubsubMany: 20,
		pubsubTrickle: 3 * time.Second, pubsubPulls: 8, pubsubStreams: 40,
	}
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) (err error) {
	if slices.Equal(args, []string{serveArg}) {
		return serve(os.Stdin, out)
	}
	if len(args) > 0 && args[0] == roundArg {
		return oneRound(args[1:], out)
	}
	if len(args) > 0 && args[0] == hundredArg {
		return oneHundred(args[1:], out)
	}
	o := full()
	fs := flag.NewFlagSet("benchmarks", flag.ContinueOnError)
	fs.StringVar(&o.only, "only", "", "measure only these, comma-separated: "+strings.Join(measurementNames(), ",")+"; sqs, hundred and pubsub are all that begin so")
	fs.StringVar(&o.systems, "systems", "", "measure only these, comma-separated: "+strings.Join(systemNames(), ","))
	fs.IntVar(&o.rounds, "rounds", o.rounds, "rounds of each, interleaved; their median counts")
	fs.IntVar(&o.window, "window", o.window, "messages that may be published and not yet handled")
	fs.DurationVar(&o.throughput, "throughput", o.throughput, "how long a round of throughput takes")
	fs.DurationVar(&o.latency, "latency", o.latency, "how long a round of latency takes")
	fs.IntVar(&o.queued, "queued", o.queued, "messages in the queue when its memory is measured")
	fs.StringVar(&o.server.endpoint, "sqs-endpoint", "", "URL of an SQS server to measure on, for example http://127.0.0.1:9324; it gets queues named bench-..., which are removed again. Default: sqs/sqstest in a process of its own")
	fs.IntVar(&o.sqsRounds, "sqs-rounds", o.sqsRounds, "rounds of each on SQS")
	fs.DurationVar(&o.sqsRound, "sqs-round", o.sqsRound, "how long a round of publishing to SQS takes")
	fs.IntVar(&o.sqsMessages, "sqs-messages", o.sqsMessages, "messages to consume from SQS in a round")
	fs.IntVar(&o.sqsLone, "sqs-lone", o.sqsLone, "single messages to publish to SQS")
	fs.DurationVar(&o.sqsTrickle, "sqs-trickle", o.sqsTrickle, "how long a round of the trickle on SQS takes")
	fs.DurationVar(&o.sqsIdle, "sqs-idle", o.sqsIdle, "how long consumers of SQS are idle")
	fs.StringVar(&o.emulator.address, "pubsub-emulator", cmp.Or(os.Getenv("PUBSUB_EMULATOR_HOST"), os.Getenv("ANYQUEUE_TEST_PUBSUB_EMULATOR")), "host:port of a Google Pub/Sub emulator to measure on; it gets topics named bench-..., which are removed again, though it keeps their messages in memory. Default: $PUBSUB_EMULATOR_HOST or $ANYQUEUE_TEST_PUBSUB_EMULATOR")
	fs.StringVar(&o.emulator.servers, "pubsub-servers", "", "where there's none, start one with this script: .ci/servers.sh")
	fs.StringVar(&o.emulator.dir, "pubsub-dir", "", "the folder that the script gets")
	fs.IntVar(&o.pubsubRounds, "pubsub-rounds", o.pubsubRounds, "rounds of each on Pub/Sub")
	fs.DurationVar(&o.pubsubRound, "pubsub-round", o.pubsubRound, "how long a round of publishing to Pub/Sub takes")
	fs.IntVar(&o.pubsubMessages, "pubsub-messages", o.pubsubMessages, "messages to consume from Pub/Sub in a round")
	fs.DurationVar(&o.pubsubConsume, "pubsub-consume", o.pubsubConsume, "how long consuming them may take; then those count that were handled")
	fs.IntVar(&o.pubsubLone, "pubsub-lone", o.pubsubLone, "single messages to publish to Pub/Sub")
	fs.IntVar(&o.pubsubMany, "pubsub-many", o.pubsubMany, "calls with 100 messages to publish to Pub/Sub")
	fs.DurationVar(&o.pubsubTrickle, "pubsub-trickle", o.pubsubTrickle, "how long a round of the trickle on Pub/Sub takes")
	fs.IntVar(&o.pubsubPulls, "pubsub-pulls", o.pubsubPulls, "pulls at once of "+pullsName)
	fs.IntVar(&o.pubsubStreams, "pubsub-streams", o.pubsubStreams, "streams of "+streamsName)
	cpu := fs.String("cpuprofile", "", "write a CPU profile to this file")
	mem := fs.String("memprofile", "", "write a profile of all allocations to this file")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if o.rounds < 1 || o.sqsRounds < 1 || o.pubsubRounds < 1 || o.window < creditChunk*publishers || o.queued < 1 {
		return fmt.Errorf("at least 1 round, 1 queued message and a window of %d", creditChunk*publishers)
	}
	o.together = *cpu != "" || *mem != ""
	if *cpu != "" {
		f, err := os.Create(*cpu)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer func() {
			pprof.StopCPUProfile()
			err = errorsFirst(err, f.Close())
		}()
	}
	if *mem != "" {
		runtime.MemProfileRate = 16 << 10
		defer func() { err = errorsFirst(err, writeAllocs(*mem)) }()
	}
	r, err := measure(o, out)
	if err = errorsFirst(err, errorsFirst(o.server.stop(), o.emulator.stop())); err != nil {
		return err
	}
	r.print(out)
	return json.NewEncoder(out).Encode(r)
}

func errorsFirst(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func writeAllocs(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errorsFirst(pprof.Lookup("allocs").WriteTo(f, 0), f.Close())
}

type measurement struct {
	name string
	run  func(o options, cs []contender, r *report) error
}

// measurements by name, in the order in which they're made.
var measurements = []measurement{
	{"throughput", measureThroughput},
	{"latency", measureLatency},
	{"queued", measureQueued},
	{"idle", measureIdle},
	{"middleware", measureMiddleware},
	{"telemetry", measureTelemetry},
	{"sqs-publish", onSQS(measureSQSPublish)},
	{"sqs-consume", onSQS(measureSQSConsume)},
	{"sqs-lone", onSQS(measureSQSLone)},
	{"sqs-trickle", onSQS(measureSQSTrickle)},
	{"sqs-idle", onSQS(measureSQSIdle)},
	{"hundred-idle", onSQS(measureHundredIdle)},
	{"hundred-busy", func(o options, _ []contender, r *report) error { return measureHundredBusy(o, r) }},
	{"hundred-ensure", onSQS(measureHundredEnsure)},
	{"hundred-redrive", onSQS(measureHundredRedrive)},
	{pubsubPublishName, onPubSub(measurePubSubPublish)},
	{pubsubConsumeName, onPubSub(measurePubSubConsume)},
	{pubsubLoneName, onPubSub(measurePubSubLone)},
	{pubsubManyName, onPubSub(measurePubSubMany)},
	{pubsubTrickleName, onPubSub(measurePubSubTrickle)},
}

// onSQS is for measurements whose contenders are others.
func onSQS(run func(options, *report) error) func(options, []contender, *report) error {
	return func(o options, _ []contender, r *report) error {
		name := "sqstest in a process of its own"
		if o.server.endpoint != "" && o.server.process == nil {
			name = o.server.endpoint
		}
		r.SQS = fmt.Sprintf("%s, %d rounds", name, o.sqsRounds)
		return run(o, r)
	}
}

// onPubSub is the same for those on Pub/Sub, which each get a fresh emulator.
func onPubSub(run func(options, *report) error) func(options, []contender, *report) error {
	return func(o options, _ []contender, r *report) error {
		if err := o.freshEmulator(); err != nil {
			return err
		}
		name := "a fresh one for each measurement"
		if !o.emulator.owned {
			name = o.emulator.address
		}
		r.PubSub = fmt.Sprintf("Google's emulator, %s, %d rounds", name, o.pubsubRounds)
		return run(o, r)
	}
}

func measurementNames() []string {
	out := make([]string, len(measurements))
	for i, m := range measurements {
		out[i] = m.name
	}
	return out
}

func measure(o options, out io.Writer) (*report, error) {
	cs, err := choose(o.systems)
	if err != nil {
		return nil, err
	}
	only := strings.FieldsFunc(o.only, func(r rune) bool { return r == ',' })
	for _, name := range only {
		if !slices.ContainsFunc(measurementNames(), func(m string) bool { return among(m, name) }) {
			return nil, fmt.Errorf("-only %s: there are %s", name, strings.Join(measurementNames(), ", "))
		}
	}
	chosen := slices.DeleteFunc(slices.Clone(measurements), func(m measurement) bool {
		return len(only) > 0 && !slices.ContainsFunc(only, func(name string) bool { return among(m.name, name) })
	})
	if slices.ContainsFunc(chosen, func(m measurement) bool { return among(m.name, "pubsub") }) {
		if err := o.emulator.check(); err != nil {
			return nil, err // now, not after all others
		}
	}
	r := newReport(o)
	for _, m := range chosen {
		fmt.Fprintf(out, "%s ...\n", m.name)
		if err := m.run(o, cs, r); err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return r, nil
}

// among tells whether a measurement is the one of that name or of that group.
func among(of, name string) bool {
	return of == name || strings.HasPrefix(of, name+"-")
}
