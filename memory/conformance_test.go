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

func FuzzRoundTrip(f *testing.F) {
	queuetest.FuzzRoundTrip(f, harness("memory", memory.Portable))
}

func BenchmarkConformance(b *testing.B) {
	queuetest.Bench(b, harness("memory", memory.Portable))
}
