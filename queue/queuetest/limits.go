package queuetest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/anyqueue/anyqueue/queue"
)

// limitRules hold a queue to the limits that its Capabilities name: what's
// within arrives, what's beyond is refused before any request.
func limitRules() []rule {
	return []rule{
		{"TheLargestBodyArrivesAndOneByteMoreIsRefused", "a limit is found in a unit test, not in production, and it's exact", false, bodyLimit},
		{"TheLargestBinaryBodyArrivesAndMoreIsRefused", "what a broker carries only encoded is longer there, and must still fit", false, binaryLimit},
		{"AttributesCountTowardsTheSize", "the broker counts them too", false, attributesCountForSize},
		{"AsManyAttributesAsAllowedArriveAndOneMoreIsRefused", "an eleventh attribute must fail in the unit test", false, attributeCount},
		{"AnIDWithAllTheAttributesArrivesOrIsRefused", "metadata needs room as well: no attribute may vanish for it", false, attributesWithID},
		{"TheLongestAttributeValueArrivesAndMoreIsRefused", "a broker would fail the whole request", false, valueLimit},
		{"TheLongestAttributeNameArrivesAndMoreIsRefused", "a broker would fail the whole request", false, nameLimit},
		{"NamesThatTheSystemKeepsForItselfAreRefused", "a broker would refuse or hide them", false, reservedNames},
		{"NamesThatTheSystemCannotCarryAreRefused", "a broker would refuse them", false, strictNames},
		{"TheLongestOrderingKeyArrivesAndMoreIsRefused", "a broker would refuse it", false, keyLimit},
		{"AnOversizeMessageDoesNotStopTheOthers", "one bad message never fails its batch-mates", true, oversizeAmongOthers},
	}
}

// userBytes is the most that a user's message may have in all; 0: no limit.
func userBytes(w queue.Wire) int {
	if w.MaxBytes == 0 {
		return 0
	}
	return w.MaxBytes - w.ReserveBytes
}

// beyond is used where the system has no limit: then this much must arrive.
const beyond = 2 << 20

func (e *env) wantArrival(q queue.Queue, m *queue.Message, what string) {
	e.Helper()
	if err := q.Publish(e.ctx, m); err != nil {
		e.Errorf("%s: %v", what, err)
		return
	}
	got, c := e.collect(q)
	e.await(what+" to arrive", func() bool { return got.len() == 1 })
	c.stop()
	d := got.all()[0]
	if !bytes.Equal(d.Body, m.Body) {
		e.Errorf("%s: the body arrived as %d bytes, sent were %d", what, len(d.Body), len(m.Body))
	}
	if len(d.Attributes) != len(m.Attributes) || len(m.Attributes) > 0 && !maps.Equal(d.Attributes, m.Attributes) {
		e.Errorf("%s: %d attributes arrived, sent were %d", what, len(d.Attributes), len(m.Attributes))
	}
	if m.ID != "" {
		equal(e, what+": ID", d.ID, m.ID)
	}
	equal(e, what+": OrderingKey", d.OrderingKey, m.OrderingKey)
}

func bodyLimit(e *env) {
	q := e.open()
	limit := userBytes(q.Capabilities().Wire)
	if limit == 0 {
		e.wantArrival(q, &queue.Message{Body: bytes.Repeat([]byte("x"), beyond)}, "a large body")
		return
	}
	e.wantArrival(q, &queue.Message{Body: bytes.Repeat([]byte("x"), limit)}, "the largest body")
	m := &queue.Message{Body: bytes.Repeat([]byte("x"), limit+1)}
	e.wantLimit(q.Publish(e.ctx, m), "body", limit+1, limit)
	m = &queue.Message{ID: "an-id", Body: bytes.Repeat([]byte("x"), limit)} // the ID needs room as well
	e.wantLimit(q.Publish(e.ctx, m), "body", limit+1, limit)
	e.expectGone(q)
}

func binaryLimit(e *env) {
	q := e.open()
	w := q.Capabilities().Wire
	if w.MaxBytes == 0 {
		e.wantArrival(q, &queue.Message{Body: make([]byte, beyond)}, "a large binary body")
		return
	}
	largest := userBytes(w)
	if w.XMLText {
		room := largest - len(queue.EncodingAttribute) - len(queue.EncodingBase64) - w.AttributeBytes
		largest = room / 4 * 3
	}
	e.wantArrival(q, &queue.Message{Body: make([]byte, largest)}, "the largest binary body")
	var le *queue.LimitError
	if err := q.Publish(e.ctx, &queue.Message{Body: make([]byte, largest+1)}); !errors.As(err, &le) {
		e.Errorf("a binary body of one byte more: got %v, want a *LimitError", err)
	}
	e.expectGone(q)
}

func attributesCountForSize(e *env) {
	q := e.open()
	w := q.Capabilities().Wire
	if w.MaxBytes == 0 {
		e.wantArrival(q, &queue.Message{Body: bytes.Repeat([]byte("x"), beyond), Attributes: someAttributes(2)}, "a large message with attributes")
		return
	}
	attrs := map[string]string{"name-one": "value-one", "name-two": "v"}
	size := 0
	for k, v := range attrs {
		size += len(k) + len(v) + w.AttributeBytes
	}
	e.wantArrival(q, &queue.Message{Body: bytes.Repeat([]byte("x"), userBytes(w)-size), Attributes: attrs}, "the largest message with attributes")
	m := &queue.Message{Body: bytes.Repeat([]byte("x"), userBytes(w)-size+1), Attributes: attrs}
	e.wantLimit(q.Publish(e.ctx, m), "body", userBytes(w)+1, userBytes(w))
	e.expectGone(q)
}

func someAttributes(n int) map[string]string {
	out := make(map[string]string, n)
	for i := range n {
		out[fmt.Sprintf("name-%03d", i)] = fmt.Sprint("value ", i)
	}
	return out
}

func attributeCount(e *env) {
	q := e.open()
	limit := q.Capabilities().Wire.MaxAttributes
	if limit == 0 {
		e.wantArrival(q, &queue.Message{Body: []byte("x"), Attributes: someAttributes(200)}, "200 attributes")
		return
	}
	e.wantArrival(q, &queue.Message{Body: []byte("x"), Attributes: someAttributes(limit)}, "all the attributes")
	e.wantLimit(q.Publish(e.ctx, &queue.Message{Body: []byte("x"), Attributes: someAttributes(limit + 1)}), "attributes", limit+1, limit)
	// A body that needs an attribute of its own takes one of them.
	binary := &queue.Message{Body: []byte{0}, Attributes: someAttributes(limit)}
	if q.Capabilities().Wire.XMLText {
		e.wantLimit(q.Publish(e.ctx, binary), "attributes", limit+1, limit)
	} else {
		e.wantArrival(q, binary, "a binary body with all the attributes")
	}
	e.expectGone(q)
}

func attributesWithID(e *env) {
	q := e.open()
	limit := q.Capabilities().Wire.MaxAttributes
	if limit == 0 {
		limit = 100
	}
	for n := limit - 1; n <= limit; n++ {
		m := &queue.Message{ID: "an-id", Body: []byte("x"), Attributes: someAttributes(n)}
		var le *queue.LimitError
		if err := q.Publish(e.ctx, m); err == nil {
			got, c := e.collect(q)
			e.await("the message", func() bool { return got.len() == 1 })
			c.stop()
			if d := got.all()[0]; d.ID != m.ID || !maps.Equal(d.Attributes, m.Attributes) {
				e.Errorf("%d attributes and an ID were accepted; %d and %q arrived", n, len(d.Attributes), d.ID)
			}
		} else if !errors.As(err, &le) || n < limit {
			e.Errorf("%d attributes and an ID, with a limit of %d: %v", n, limit, err)
		}
	}
}

func valueLimit(e *env) {
	q := e.open()
	w := q.Capabilities().Wire
	limit := w.MaxValueBytes
	if limit == 0 {
		e.wantArrival(q, &queue.Message{Body: []byte("x"), Attributes: map[string]string{"a": strings.Repeat("v", 100_000)}}, "a long value")
		return
	}
	e.wantArrival(q, &queue.Message{Body: []byte("x"), Attributes: map[string]string{"a": strings.Repeat("v", limit)}}, "the longest value")
	m := &queue.Message{Body: []byte("x"), Attributes: map[string]string{"a": strings.Repeat("v", limit+1)}}
	e.wantLimit(q.Publish(e.ctx, m), `attribute "a"`, limit+1, limit)
	e.expectGone(q)
}

func nameLimit(e *env) {
	q := e.open()
	limit := q.Capabilities().Wire.MaxNameBytes
	if limit == 0 {
		e.wantArrival(q, &queue.Message{Body: []byte("x"), Attributes: map[string]string{strings.Repeat("n", 1000): "v"}}, "a long name")
		return
	}
	e.wantArrival(q, &queue.Message{Body: []byte("x"), Attributes: map[string]string{strings.Repeat("n", limit): "v"}}, "the longest name")
	m := &queue.Message{Body: []byte("x"), Attributes: map[string]string{strings.Repeat("n", limit+1): "v"}}
	e.wantLimit(q.Publish(e.ctx, m), "name of attribute", limit+1, limit)
	m.Attributes = map[string]string{"": "v"}
	e.wantErr(q.Publish(e.ctx, m), queue.ErrInvalid, "publishing an attribute without a name")
	e.expectGone(q)
}

func reservedNames(e *env) {
	q := e.open()
	for _, p := range q.Capabilities().Wire.ReservedNames {
		for _, name := range []string{p + "x", strings.ToUpper(p) + "x"} {
			m := &queue.Message{Body: []byte("x"), Attributes: map[string]string{name: "v"}}
			e.wantErr(q.Publish(e.ctx, m), queue.ErrInvalid, "publishing an attribute "+name)
		}
	}
	e.expectGone(q)
}

func strictNames(e *env) {
	q := e.open()
	if !q.Capabilities().Wire.StrictNames {
		e.wantArrival(q, &queue.Message{Body: []byte("x"), Attributes: map[string]string{"any name, ä": "v", ".a..b.": "w"}}, "names with any character")
		return
	}
	for _, name := range []string{"a b", "ä", ".a", "a.", "a..b", "a/b", "a:b", "a\n"} {
		m := &queue.Message{Body: []byte("x"), Attributes: map[string]string{name: "v"}}
		e.wantErr(q.Publish(e.ctx, m), queue.ErrInvalid, fmt.Sprintf("publishing an attribute %q", name))
	}
	e.wantArrival(q, &queue.Message{Body: []byte("x"), Attributes: map[string]string{"a.b-c_D.9": "v"}}, "every kind of allowed character")
	e.expectGone(q)
}

func keyLimit(e *env) {
	q, ok := e.ordered()
	if !ok {
		return
	}
	w := q.Capabilities().Wire
	limit := w.MaxKeyBytes
	if limit == 0 {
		e.wantArrival(q, keyed(strings.Repeat("k", 4000), "x"), "a long ordering key")
		return
	}
	e.wantArrival(q, keyed(strings.Repeat("k", limit), "x"), "the longest ordering key")
	e.wantLimit(q.Publish(e.ctx, keyed(strings.Repeat("k", limit+1), "x")), "ordering key", limit+1, limit)
	if w.ASCIIKeys {
		for _, k := range []string{"a b", "ä", "a\n"} {
			e.wantErr(q.Publish(e.ctx, keyed(k, "x")), queue.ErrInvalid, fmt.Sprintf("publishing the ordering key %q", k))
		}
	}
	if q.Capabilities().Dedup {
		m := withDedup("x", strings.Repeat("d", limit+1))
		e.wantLimit(q.Publish(e.ctx, m), "dedup id", limit+1, limit)
	}
	e.expectGone(q)
}

func oversizeAmongOthers(e *env) {
	q := e.open()
	limit := userBytes(q.Capabilities().Wire)
	if limit == 0 {
		e.publish(q, text("a"), &queue.Message{Body: bytes.Repeat([]byte("x"), beyond)}, text("b"))
		got, c := e.collect(q)
		e.await("all three", func() bool { return got.len() == 3 })
		c.stop()
		return
	}
	big := &queue.Message{Body: bytes.Repeat([]byte("x"), limit+1)}
	err := q.Publish(e.ctx, text("a"), big, text("b"))
	e.wantLimit(err, "body", limit+1, limit)
	if errs := queue.PublishErrors(err, 3); errs[0] != nil || errs[2] != nil {
		e.Errorf("the error is %v; only the second message is too large", err)
	}
	r := e.recorder()
	c := e.consume(q, r.ok())
	r.awaitEnds("a", 1)
	r.awaitEnds("b", 1)
	c.stop()
}
