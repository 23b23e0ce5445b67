// Command benchmarks measures what this library costs beside a floor and two
// peers, in one run: messages in memory, 1 KiB bodies, 3 attributes. Figures
// are medians of interleaved rounds, so that a machine that's busy for a while
// is so for all of them. The last line is the result as JSON.
//
// The floor is the least that a queue with leases can do; see floor.go. The
// peers are Watermill's gochannel and gocloud.dev's mempubsub. It's a module of
// its own, so that they're no dependencies of the library.
//
// It exits with 0 also when a target isn't reached, as a busy machine decides
// that too, and with 1 when something couldn't be measured.
package main

import (
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
	latency    time.Duration // of one round
	queued     int           // messages
	idleQueues int
	idle       time.Duration
	deliveries int // in one round of the engine alone
}

func full() options {
	return options{
		rounds: 7, window: 1024,
		throughput: time.Second, latency: 2 * time.Second, queued: 1_000_000,
		idleQueues: 1000, idle: 5 * time.Second, deliveries: 500_000,
	}
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) (err error) {
	o := full()
	fs := flag.NewFlagSet("benchmarks", flag.ContinueOnError)
	fs.StringVar(&o.only, "only", "", "measure only these, comma-separated: throughput,latency,queued,idle,middleware")
	fs.StringVar(&o.systems, "systems", "", "measure only these, comma-separated: "+strings.Join(names(contenders), ","))
	fs.IntVar(&o.rounds, "rounds", o.rounds, "rounds of each, interleaved; their median counts")
	fs.IntVar(&o.window, "window", o.window, "messages that may be published and not yet handled")
	fs.DurationVar(&o.throughput, "throughput", o.throughput, "how long a round of throughput takes")
	fs.DurationVar(&o.latency, "latency", o.latency, "how long a round of latency takes")
	fs.IntVar(&o.queued, "queued", o.queued, "messages in the queue when its memory is measured")
	cpu := fs.String("cpuprofile", "", "write a CPU profile to this file")
	mem := fs.String("memprofile", "", "write a profile of all allocations to this file")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if o.rounds < 1 || o.window < creditChunk*publishers || o.queued < 1 {
		return fmt.Errorf("at least 1 round, 1 queued message and a window of %d", creditChunk*publishers)
	}
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
	if err != nil {
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

// measurements by name, in the order in which they're made.
var measurements = []struct {
	name string
	run  func(o options, cs []contender, r *report) error
}{
	{"throughput", measureThroughput},
	{"latency", measureLatency},
	{"queued", measureQueued},
	{"idle", measureIdle},
	{"middleware", measureMiddleware},
}

func measure(o options, out io.Writer) (*report, error) {
	cs, err := choose(o.systems)
	if err != nil {
		return nil, err
	}
	only := strings.FieldsFunc(o.only, func(r rune) bool { return r == ',' })
	r := newReport(o)
	ran := 0
	for _, m := range measurements {
		if len(only) > 0 && !slices.Contains(only, m.name) {
			continue
		}
		ran++
		fmt.Fprintf(out, "%s ...\n", m.name)
		if err := m.run(o, cs, r); err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
	}
	if ran == 0 || len(only) > ran {
		return nil, fmt.Errorf("-only %s: unknown", o.only)
	}
	return r, nil
}
