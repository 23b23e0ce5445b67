package memory_test

import (
	"flag"
	"testing"
	"time"

	"github.com/anyqueue/anyqueue/memory"
	"github.com/anyqueue/anyqueue/queue/queuetest"
)

// harness describes a personality to the conformance suite.
func harness(name string, like memory.Like) queuetest.Harness {
	return queuetest.Harness{
		Name:    name,
		Virtual: true,
		New: func(testing.TB) queuetest.Instance {
			return queuetest.Instance{
				Backend:    memory.New(&memory.Options{Like: like}),
				PublishRaw: memory.PublishRaw,
			}
		},
	}
}

func TestConformancePortable(t *testing.T) {
	queuetest.Run(t, harness("memory", memory.Portable))
}

func TestConformanceSQSStandard(t *testing.T) {
	queuetest.Run(t, harness("memory-sqs-standard", memory.SQSStandard))
}

func TestConformanceSQSFIFO(t *testing.T) {
	h := harness("memory-sqs-fifo", memory.SQSFIFO)
	h.Ordered = true
	queuetest.Run(t, h)
}

func TestConformancePubSub(t *testing.T) {
	queuetest.Run(t, harness("memory-pubsub", memory.PubSub))
}

var realTime = flag.Bool("realtime", false, "run the conformance suite on real time too, as against a server")

// On real time the suite is tried as it runs against a server. What it finds out
// about the broker is known from virtual time; a slow machine may fail it.
func TestConformanceOnRealTime(t *testing.T) {
	if !*realTime {
		t.Skip("only with -realtime: everything is tested on virtual time")
	}
	h := harness("memory", memory.Portable)
	h.Virtual, h.Unit, h.Parallel = false, 200*time.Millisecond, 64
	queuetest.Run(t, h)
}

var soak = flag.Duration("soak", 0, "how long to run storms on each personality, with -timeout beyond four times that; the suite itself runs one")

func TestSoak(t *testing.T) {
	if *soak == 0 {
		t.Skip("only with -soak: the conformance suite runs a short storm")
	}
	for _, h := range []queuetest.Harness{
		harness("memory", memory.Portable), harness("memory-sqs-standard", memory.SQSStandard),
		harness("memory-sqs-fifo", memory.SQSFIFO), harness("memory-pubsub", memory.PubSub),
	} {
		t.Run(h.Name, func(t *testing.T) {
			h.Ordered = h.Name == "memory-sqs-fifo"
			queuetest.Soak(t, h, *soak)
		})
	}
}

func FuzzRoundTrip(f *testing.F) {
	queuetest.FuzzRoundTrip(f, harness("memory", memory.Portable))
}

func BenchmarkConformance(b *testing.B) {
	queuetest.Bench(b, harness("memory", memory.Portable))
}
