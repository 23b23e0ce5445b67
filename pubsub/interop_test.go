package pubsub_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/internal/interoptest"
	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/pubsub"
	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/queuetest"
)

// python names a Python with google-cloud-pubsub for the tests of interop. Where it's
// set they fail if it can't be used.
const python = "ANYQUEUE_TEST_PUBSUB_PYTHON"

// onServersWithPython runs a test on every server that listens, against programs in
// Python.
func onServersWithPython(t *testing.T, test func(t *testing.T, s *server, py *interoptest.Program)) {
	t.Helper()
	onServers(t, func(t *testing.T, s *server) {
		var env []string // on Google Cloud what the environment says
		if s.name == emulatorName {
			env = []string{"PUBSUB_EMULATOR_HOST=" + os.Getenv(emulator), "no_proxy=127.0.0.1"}
		}
		test(t, s, interoptest.Python(t, python, "google-cloud-pubsub", env...))
	})
}

func subscriptionOf(q queue.Queue) string { return q.Capabilities().Address }

// cases are messages that go over the border, both ways: beside what every system
// carries, what Pub/Sub can.
func cases() []interoptest.Case {
	return append(interoptest.Cases(),
		interoptest.Case{Name: "nothing but an attribute", Attributes: map[string]string{"k": "v"}},
		interoptest.Case{Name: "nothing but an ID", ID: "nothing-but-this"},
		interoptest.Case{Name: "attributes of all kinds", Body: []byte("m"), Attributes: map[string]string{
			"empty": "", "control": "a\x01b\x00", "Schlüssel €": "v", "spaces in it": " ", "name/" + strings.Repeat("n", 251): "v", "value": strings.Repeat("v", 1024),
		}},
		interoptest.Case{Name: "99 attributes and an ID", Body: []byte("m"), ID: "ninety-nine", Attributes: interoptest.Attributes(99)},
		interoptest.Case{Name: "an ID that takes several attributes", Body: []byte("m"), ID: strings.Repeat("0123456789", 250)},
		interoptest.Case{Name: "one with runes at their ends", Body: []byte("m"), ID: "x" + strings.Repeat("ä€😀", 400)},
		// Google's client for Python takes no answer over 4 MiB from the emulator.
		interoptest.Case{Name: "3 MB", Body: bytes.Repeat([]byte{0xff, 0, 'x'}, 1e6)},
	)
}

func TestServerPythonReadsWhatIsPublished(t *testing.T) {
	onServersWithPython(t, func(t *testing.T, s *server, py *interoptest.Program) {
		q := s.fresh(t, "python", nil)
		for _, c := range cases() {
			require.NoError(t, q.Publish(t.Context(), c.Message()), c.Name)
		}
		interoptest.ExpectCases(t, cases(), py.Receive(subscriptionOf(q), len(cases())))
	})
}

func TestServerWhatPythonPublishesIsConsumed(t *testing.T) {
	onServersWithPython(t, func(t *testing.T, s *server, py *interoptest.Program) {
		q := s.fresh(t, "python", nil)
		var lines, got []interoptest.Line
		for _, c := range cases() {
			lines = append(lines, c.Line())
		}
		py.Send(topicOf(q), lines...)
		for _, d := range receive(t, q, len(lines)) {
			assert.WithinDuration(t, time.Now(), d.EnqueuedAt, time.Minute)
			assert.Zero(t, d.Failures)
			for k, v := range infoOf(d).Attributes {
				assert.LessOrEqual(t, len(v), 1024, "%s: Pub/Sub takes no more, the emulator does", k)
			}
			got = append(got, interoptest.LineOf(d))
		}
		interoptest.ExpectCases(t, cases(), got)
	})
}

func infoOf(d *queue.Delivery) pubsub.Info {
	info, _ := pubsub.InfoOf(d)
	return info
}

// foreignProducer knows nothing of this library.
const foreignProducer = `
import base64, json, sys
from google.cloud import pubsub_v1

publisher = pubsub_v1.PublisherClient()
for line in sys.stdin:
    m = json.loads(line)
    publisher.publish(sys.argv[1], base64.b64decode(m["body"]), **m.get("attributes", {})).result(timeout=30)
`

func TestServerMessagesOfOtherProducersComeThroughUnchanged(t *testing.T) {
	foreign := []interoptest.Case{
		{Body: []byte("plain")},
		{Body: []byte("\x00\xff\x80")},
		{Body: []byte("ä€😀\n"), Attributes: map[string]string{"trace": "00-1-2-01", "Schlüssel €": " ä\x01 ", "With.Dots_and-dashes.9": ""}},
		{Attributes: map[string]string{"nothing": "but this"}},
		{Body: []byte("names like the library's"), Attributes: map[string]string{"queue-meta": "hello", "queue-metadata": "{}", "queue-encoding": "gzip", "Queue-Meta": `{"id":"x"}`}},
		{Body: []byte("JSON by the library's name"), Attributes: map[string]string{"queue-meta": `{"version":3}`, "queue-meta-2": ""}},
		{Body: []byte("what Google's tracing adds"), Attributes: map[string]string{"googclient_traceparent": "00-1-2-01"}},
		{Body: []byte("a hundred of them"), Attributes: interoptest.Attributes(100)},
	}
	onServersWithPython(t, func(t *testing.T, s *server, py *interoptest.Program) {
		q := s.fresh(t, "foreign", nil)
		var lines, got, raw []interoptest.Line
		for i := range foreign {
			foreign[i].Name = string(foreign[i].Body)
			lines = append(lines, foreign[i].Line())
		}
		py.Run(py.Encode(lines...), "-c", foreignProducer, topicOf(q))
		for _, d := range receive(t, q, len(foreign)) {
			assert.WithinDuration(t, time.Now(), d.EnqueuedAt, time.Minute)
			assert.Zero(t, d.Failures)
			assert.Zero(t, d.Due())
			got = append(got, interoptest.LineOf(d))
			d.Attributes = infoOf(d).Attributes
			raw = append(raw, interoptest.LineOf(d))
		}
		interoptest.ExpectCases(t, foreign, got)
		interoptest.ExpectCases(t, foreign, raw)
	})
}

// foreignConsumer knows nothing of this library, and receives as most programs do: by
// a stream.
const foreignConsumer = `
import base64, json, queue, sys
from google.cloud import pubsub_v1

subscriber, came = pubsub_v1.SubscriberClient(), queue.Queue()
stream = subscriber.subscribe(sys.argv[1], callback=came.put)
for _ in range(int(sys.argv[2])):
    m = came.get(timeout=30)
    m.ack()
    body = base64.b64encode(m.data).decode()
    print(json.dumps({"broker_id": m.message_id, "body": body, "attributes": dict(m.attributes), "key": m.ordering_key}))
stream.cancel()
stream.result()
`

// What another consumer sees is what the README promises to those who have one.
func TestServerOtherConsumersSeeTheBodyAndNoAttributesButThoseThatAreNeeded(t *testing.T) {
	due := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	ofOurs := func(name, value string) map[string]string { return map[string]string{name: value} }
	sent := []struct {
		m    queue.Message
		want map[string]string
	}{
		{queue.Message{Body: []byte("plain")}, nil},
		{queue.Message{Body: []byte("\x00\xff\x80")}, nil},
		{queue.Message{Body: []byte("attributes"), Attributes: interoptest.Attributes(100)}, interoptest.Attributes(100)},
		{queue.Message{Body: []byte("a key"), OrderingKey: "customer-1"}, nil},
		{queue.Message{Attributes: map[string]string{"k": "nothing but this"}}, map[string]string{"k": "nothing but this"}},
		{queue.Message{}, ofOurs("queue-encoding", "empty")},
		{queue.Message{Body: []byte("an ID"), ID: "order/17 ä"}, ofOurs("queue-meta", `{"id":"order/17 ä"}`)},
		{queue.Message{Body: []byte("late"), DeliverAt: due}, ofOurs("queue-meta", `{"due":`+strconv.FormatInt(due.UnixMilli(), 10)+`}`)},
		{queue.Message{Body: []byte("a long ID"), ID: strings.Repeat("ä", 1000)}, map[string]string{
			"queue-meta": `{"id":"` + strings.Repeat("ä", 508), "queue-meta-2": strings.Repeat("ä", 492) + `"}`,
		}},
	}
	onServersWithPython(t, func(t *testing.T, s *server, py *interoptest.Program) {
		q := s.fresh(t, "foreign", &queue.QueueSpec{Ordered: true})
		var want []interoptest.Case
		for _, c := range sent {
			require.NoError(t, q.Publish(t.Context(), &c.m))
			want = append(want, interoptest.Case{Name: fmt.Sprintf("%q", c.m.Body), Body: c.m.Body, Attributes: c.want})
		}
		got := py.Decode(py.Run(nil, "-c", foreignConsumer, subscriptionOf(q), fmt.Sprint(len(sent))), len(sent))
		interoptest.ExpectCases(t, want, got)
		for _, l := range got {
			assert.Equal(t, string(l.Body) == "a key", l.Key == "customer-1", "%q has the key %q", l.Body, l.Key)
		}
	})
}

func TestServerOrderingKeysAreTheSameOnBothSides(t *testing.T) {
	keys := []string{"customer-1", "Kunde/2 ä"}
	const each = 5
	var lines []interoptest.Line
	want := map[string][]string{}
	for i := range each {
		for _, k := range keys {
			body := fmt.Sprint(k, " ", i)
			lines = append(lines, interoptest.Line{Body: []byte(body), Key: k})
			want[k] = append(want[k], body)
		}
	}
	onServersWithPython(t, func(t *testing.T, s *server, py *interoptest.Program) {
		toPython, fromPython := s.fresh(t, "python", &queue.QueueSpec{Ordered: true}), s.fresh(t, "python", &queue.QueueSpec{Ordered: true})
		for _, l := range lines {
			require.NoError(t, toPython.Publish(t.Context(), keyed(l.Key, string(l.Body))))
		}
		got := map[string][]string{}
		for _, l := range py.Receive(subscriptionOf(toPython), len(lines)) {
			got[l.Key] = append(got[l.Key], string(l.Body))
		}
		assert.Equal(t, want, got)

		py.Send(topicOf(fromPython), lines...)
		clear(got)
		for range lines {
			d := receive(t, fromPython, 1)[0]
			got[d.OrderingKey] = append(got[d.OrderingKey], string(d.Body))
			require.NoError(t, fromPython.Settle(t.Context(), queue.Settlement{Delivery: d, Kind: queue.Ack}))
		}
		assert.Equal(t, want, got)
	})
}

func TestServerPythonReadsTheDueTimeAndWaitsForIt(t *testing.T) {
	onServersWithPython(t, func(t *testing.T, s *server, py *interoptest.Program) {
		q := s.fresh(t, "python", nil)
		due := time.Now().Add(4 * time.Second).Truncate(time.Millisecond)
		require.NoError(t, q.Publish(t.Context(), &queue.Message{Body: []byte("late"), DeliverAt: due}))
		require.NoError(t, q.Publish(t.Context(), message("at once")))
		got := map[string]int64{}
		for _, l := range py.Receive(subscriptionOf(q), 2) {
			got[string(l.Body)] = l.Due
		}
		assert.Equal(t, map[string]int64{"at once": 0, "late": due.UnixMilli()}, got)
		assert.False(t, time.Now().Before(due), "it came %v early", time.Until(due))
	})
}

func TestServerADueTimeFromPythonIsKept(t *testing.T) {
	onServersWithPython(t, func(t *testing.T, s *server, py *interoptest.Program) {
		q := s.fresh(t, "python", nil)
		due := time.Now().Add(4 * time.Second).Truncate(time.Millisecond)
		py.Send(topicOf(q), interoptest.Line{Body: []byte("late"), Due: due.UnixMilli()})
		handled := make(chan time.Time, 1)
		consume(t, q, func(_ context.Context, d *queue.Delivery) error {
			assert.True(t, due.Equal(d.Due()))
			handled <- time.Now()
			return nil
		})
		select {
		case at := <-handled:
			assert.False(t, at.Before(due), "it was handled %v early", due.Sub(at))
		case <-time.After(patience):
			t.Error("it wasn't handled")
		}
	})
}

// consume runs a handler until the test ends.
func consume(t *testing.T, q queue.Queue, h queue.Handler, mw ...queue.Middleware) {
	t.Helper()
	c, err := queue.NewConsumer(q, h, &queue.ConsumerOptions{Middleware: mw, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	queuetest.Start(t, c)
}

func TestServerPythonReadsTheHistoryOfADeadLetter(t *testing.T) {
	onServersWithPython(t, func(t *testing.T, s *server, py *interoptest.Program) {
		q, dead := s.fresh(t, "python", &queue.QueueSpec{Ordered: true}), s.fresh(t, "dead", &queue.QueueSpec{IsDeadLetter: true})
		failure := errors.New("no such customer: " + strings.Repeat("7", 3000) + " ä€😀")
		begun := time.Now()
		consume(t, q, func(context.Context, *queue.Delivery) error { return queue.Reject(failure) }, middleware.DeadLetter(dead, middleware.DeadLetterOptions{}))
		sent := &queue.Message{ID: "order/17", Body: []byte{0, 0xff}, OrderingKey: "customer-1", Attributes: interoptest.Attributes(90)}
		require.NoError(t, q.Publish(t.Context(), sent))

		got := py.Receive(subscriptionOf(dead), 1)
		interoptest.ExpectCases(t, []interoptest.Case{{Name: "the message", ID: sent.ID, Body: sent.Body, Attributes: sent.Attributes}}, got)
		assert.Equal(t, "customer-1", got[0].Key, "which its queue can't carry")
		require.NotNil(t, got[0].DeadLetter)
		history := *got[0].DeadLetter
		for what, at := range map[string]*time.Time{"first": &history.FirstAt, "last": &history.LastAt} {
			assert.WithinRange(t, *at, begun.Add(-time.Minute), begun.Add(time.Minute), what)
			*at = time.Time{}
		}
		assert.Equal(t, queue.DeadLetterInfo{
			ID: sent.ID, Source: q.Capabilities().Source, Reason: queue.ReasonRejected, Failures: 1,
			Error: failure.Error(), ErrorType: "*errors.errorString", Fingerprint: queue.Fingerprint(failure),
		}, history)
	})
}

// A message of Pub/Sub's hundred attributes has no room for a history: then some of them
// travel in it.
func TestServerPythonReadsADeadLetterOfAHundredAttributes(t *testing.T) {
	onServersWithPython(t, func(t *testing.T, s *server, py *interoptest.Program) {
		q, dead := s.fresh(t, "python", nil), s.fresh(t, "dead", &queue.QueueSpec{IsDeadLetter: true})
		attrs := interoptest.Attributes(100)
		attrs["a7"] = "ä\x01 \"€😀\""
		require.NoError(t, q.Publish(t.Context(), &queue.Message{Body: []byte("m"), Attributes: attrs}))
		d := receive(t, q, 1)[0]
		require.NoError(t, dead.Publish(t.Context(), queue.NewDeadLetter(d, errors.New("no"), queue.ReasonRejected, time.Now())))
		interoptest.ExpectCases(t, []interoptest.Case{{Name: "the message", ID: d.ID, Body: []byte("m"), Attributes: attrs}}, py.Receive(subscriptionOf(dead), 1))
	})
}

func TestServerPythonReadsARedrivenMessageFromTheReturnSubscription(t *testing.T) {
	onServersWithPython(t, func(t *testing.T, s *server, py *interoptest.Program) {
		q, dead := s.fresh(t, "python", nil), s.fresh(t, "dead", &queue.QueueSpec{IsDeadLetter: true})
		require.NoError(t, q.Publish(t.Context(), &queue.Message{ID: "order/17", Body: []byte("m"), Attributes: map[string]string{"k": "v"}}))
		d := receive(t, q, 1)[0]
		require.NoError(t, dead.Publish(t.Context(), queue.NewDeadLetter(d, errors.New("no"), queue.ReasonRejected, time.Now())))
		require.NoError(t, q.Settle(t.Context(), queue.Settlement{Delivery: d, Kind: queue.Ack}))
		_, err := queue.Redrive(t.Context(), dead, q, &queue.RedriveOptions{Max: 1})
		require.NoError(t, err)
		got := py.Receive(subscriptionOf(q)+".return", 1)
		interoptest.ExpectCases(t, []interoptest.Case{{Name: "the message", ID: "order/17", Body: []byte("m"), Attributes: map[string]string{"k": "v"}}}, got)
		require.NotNil(t, got[0].DeadLetter)
		assert.Equal(t, 1, got[0].DeadLetter.Redriven)
	})
}
