package queuetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// publishRules hold what arrives to what was published.
func publishRules() []rule {
	return []rule{
		{"AMessageArrivesAsItWasSent", "the bytes on the wire are the user's: what arrives is what was published", true, arrives},
		{"AnyBodyArrives", "a body is bytes: empty, binary or text, each broker must bring it back as it was", true, anyBody},
		{"AnyAttributeValueArrives", "a value that a broker can't carry goes another way; it isn't changed and isn't dropped", false, anyAttribute},
		{"InvalidUTF8InAnAttributeIsRefused", "brokers would alter it in silence or retry for ever", false, invalidUTF8},
		{"ANilMessageIsRefused", "a caller's mistake must not panic within, nor stop the others", false, nilMessage},
		{"AReservedAttributeIsRefused", "it would be taken for the library's own", false, reservedAttribute},
		{"OneBadMessageDoesNotStopTheOthers", "one bad message never fails its batch-mates, and the error names it", true, partialFailure},
		{"PublishingNothingIsNil", "a loop that found nothing to send has done all of it", false, publishNothing},
		{"ManyMessagesInOneCallAllArrive", "the backend splits what the broker doesn't take in one request, by count and by bytes", false, manyMessages},
		{"PublishNeverWritesToItsMessages", "one Message may be published many times, also concurrently", false, publishNeverWrites},
		{"WhatThePublisherChangesLaterDoesNotArrive", "a caller reuses its buffers", false, publisherIsolated},
		{"WhatAHandlerChangesIsNotRedelivered", "a redelivery brings the original, whatever a handler did to what it was given", false, handlerIsolated},
		{"ForeignMessagesAreConsumed", "any program in any language can produce", false, foreignMessages},
		{"ForeignMetadataThatMakesNoSenseArrives", "what isn't understood is left as it came; it must not be lost or end a consumer", false, foreignMetadata},
		{"AnOptionForAnotherProviderIsRefused", "an option that does nothing is a promise broken in silence", false, foreignOption},
		{"AHintForAnotherProviderIsIgnored", "whoever wraps an option in Hint wants it where it works, and no error elsewhere", false, foreignHint},
		{"ACancelledPublishSaysSo", "its caller must not take it for durable", false, cancelledPublish},
		{"PublishWhileClosingIsDurableOrAnError", "a shutdown must not lose what was confirmed", false, publishWhileClosing},
		{"AClosedQueueSaysSo", "every call afterwards fails with ErrClosed, and closing twice is harmless", true, closedSaysSo},
		{"AMissingQueueIsNotFound", "a missing queue is an error, never silently created", true, missingQueue},
		{"APortableNameIsChecked", "a name that works on one provider alone is found on the first", false, nameIsChecked},
	}
}

// wantFailed fails unless err is a *queue.PublishError that names just these
// messages, with these errors.
func (e *env) wantFailed(err error, want map[int]error) {
	e.Helper()
	var pe *queue.PublishError
	if !errors.As(err, &pe) {
		e.Fatalf("Publish: got %v, want a *PublishError", err)
	}
	got := map[int]error{}
	for _, f := range pe.Failed {
		got[f.Index] = f.Err
	}
	for i, w := range want {
		if !errors.Is(got[i], w) {
			e.Errorf("Publish: message %d failed with %v, want %v", i, got[i], w)
		}
	}
	if len(got) != len(want) || len(pe.Failed) != len(want) {
		e.Errorf("Publish: the error names %v, want just %v", got, want)
	}
}

func arrives(e *env) {
	q := e.open()
	m := &queue.Message{
		ID: "order-7", Body: []byte(`{"n": 7}`),
		Attributes: map[string]string{"content-type": "application/json", "tenant": "Müller & Söhne", "a.b_c-D9": "x"},
	}
	r := e.recorder()
	c := e.consume(q, r.ok())
	e.publish(q, m)
	got := r.awaitEnds(string(m.Body), 1)[0].d
	c.stop()
	equal(e, "ID", got.ID, m.ID)
	if !maps.Equal(got.Attributes, m.Attributes) {
		e.Errorf("attributes: got %v, want %v", got.Attributes, m.Attributes)
	}
	if got.BrokerID == "" || got.BrokerID == got.ID {
		e.Errorf("BrokerID is %q; want the broker's own, beside the ID %q", got.BrokerID, got.ID)
	}
	if !got.DeliverAt.IsZero() || got.Delay != 0 || got.DedupID != "" || got.Options != nil || got.OrderingKey != "" {
		e.Errorf("the delivery has what wasn't sent: %+v", got.Message)
	}
}

// bodies that brokers trip over. Their names are the messages' IDs.
func bodies() map[string][]byte {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	return map[string][]byte{
		"empty":              {},
		"text":               []byte("hello"),
		"one NUL":            {0},
		"NUL inside":         []byte("a\x00b"),
		"every byte":         all,
		"lone surrogate":     []byte("\xed\xa0\x80"),
		"broken UTF-8":       []byte("ab\xff\xfecd"),
		"U+FFFE and U+FFFF":  []byte("x\uFFFEy\uFFFFz"),
		"U+FFFD itself":      []byte("\uFFFD"),
		"emoji":              []byte("👩‍🚀🇩🇪"),
		"control characters": []byte("\x01\x1f\x7f\u0085"),
		"white space":        []byte(" \t\r\n "),
		"line ends":          []byte("a\r\nb\rc\n"),
		"markup":             []byte(`<a href="x">&amp;&#0;]]></a>`),
		"base64 look-alike":  []byte("aGVsbG8="),
		"a dash":             []byte("-"),
		"quotes":             []byte(`"\u0000"`),
		"large text":         bytes.Repeat([]byte("0123456789abcdef"), 4096),
		"large binary":       bytes.Repeat(all, 256),
	}
}

func anyBody(e *env) {
	q := e.open()
	want := bodies()
	got, c := e.collect(q)
	for id, body := range want {
		e.publish(q, &queue.Message{ID: id, Body: body})
		e.publish(q, &queue.Message{ID: id + "+", Body: body, Attributes: map[string]string{"a": "1"}})
	}
	// Without an ID there's no metadata beside the body.
	e.publish(q, &queue.Message{Body: []byte{}}, &queue.Message{Body: nil}, &queue.Message{Body: []byte{0xff}})
	e.await("every body to arrive", func() bool { return got.len() == 2*len(want)+3 })
	c.stop()
	for id, body := range want {
		for _, id := range []string{id, id + "+"} {
			if d, ok := got.get(id); !ok || !bytes.Equal(d.Body, body) {
				e.Errorf("%s: sent %.40q, got %.40q", id, body, d.Body)
			}
		}
		if d, _ := got.get(id); len(d.Attributes) != 0 {
			e.Errorf("%s: got attributes %v, want none", id, d.Attributes)
		}
		if d, _ := got.get(id + "+"); !maps.Equal(d.Attributes, map[string]string{"a": "1"}) {
			e.Errorf("%s with an attribute: got attributes %v", id, d.Attributes)
		}
	}
	var rest []string
	for _, d := range got.all() {
		if d.ID == d.BrokerID {
			rest = append(rest, string(d.Body))
		}
	}
	slices.Sort(rest)
	if !slices.Equal(rest, []string{"", "", "\xff"}) {
		e.Errorf("without an ID two empty bodies and one byte were sent; got %q", rest)
	}
}

func anyAttribute(e *env) {
	q := e.open()
	values := map[string]string{
		"empty": "", "space": " ", "NUL": "a\x00b", "control": "\x01\x1f", "lines": "a\r\nb", "unicode": "Grüße 👋 日本語",
		"noncharacter": "\uFFFE\uFFFF", "quotes": `"\'` + "`", "markup": "<&>", "long": strings.Repeat("v", 1024), "json": `{"id":1}`,
	}
	got, c := e.collect(q)
	for name, v := range values {
		e.publish(q, &queue.Message{ID: name, Body: []byte("x"), Attributes: map[string]string{"v": v}})
	}
	// Several at once, and with a body that can't go as it is.
	mix := map[string]string{"empty": "", "nul": "\x00", "plain": "p", "more": "\x02"}
	e.publish(q, &queue.Message{ID: "mix", Body: []byte{0}, Attributes: mix})
	e.await("every message to arrive", func() bool { return got.len() == len(values)+1 })
	c.stop()
	for name, v := range values {
		d, _ := got.get(name)
		if got, ok := d.Attributes["v"]; !ok || got != v || len(d.Attributes) != 1 {
			e.Errorf("%s: sent %q, got %q (all: %q)", name, v, got, d.Attributes)
		}
	}
	if d, _ := got.get("mix"); !maps.Equal(d.Attributes, mix) || string(d.Body) != "\x00" {
		e.Errorf("mix: got %q and body %q, want %q and a NUL", d.Attributes, d.Body, mix)
	}
}

func invalidUTF8(e *env) {
	q := e.open()
	for name, m := range map[string]*queue.Message{
		"value": {Body: []byte("x"), Attributes: map[string]string{"a": "\xff"}},
		"name":  {Body: []byte("x"), Attributes: map[string]string{"\xff": "a"}},
		"ID":    {Body: []byte("x"), ID: "\xff"},
	} {
		if err := q.Publish(e.ctx, m); !errors.Is(err, queue.ErrInvalid) {
			e.Errorf("an attribute %s that isn't UTF-8: got %v, want ErrInvalid", name, err)
		}
	}
	e.expectGone(q)
}

func nilMessage(e *env) {
	q := e.open()
	e.wantFailed(q.Publish(e.ctx, nil, text("one")), map[int]error{0: queue.ErrInvalid})
	r := e.recorder()
	c := e.consume(q, r.ok())
	r.awaitEnds("one", 1)
	c.stop()
}

func reservedAttribute(e *env) {
	q := e.open()
	for _, name := range []string{"queue-meta", "queue-encoding", "queue-", "queue-anything"} {
		m := text("x")
		m.Attributes = map[string]string{name: "{}"}
		e.wantErr(q.Publish(e.ctx, m), queue.ErrInvalid, "publishing an attribute "+name)
	}
	m := text("near")
	m.Attributes = map[string]string{"queue": "1", "Queue-x": "2", "my-queue-x": "3"}
	got, c := e.collect(q)
	e.publish(q, m)
	e.await("the allowed names to arrive", func() bool { return got.len() == 1 })
	c.stop()
	if d := got.all()[0]; !maps.Equal(d.Attributes, m.Attributes) {
		e.Errorf("attributes: got %v, want %v", d.Attributes, m.Attributes)
	}
}

func partialFailure(e *env) {
	q := e.open()
	msgs := texts("m", 12)
	msgs[4].Attributes = map[string]string{"queue-x": "reserved"}
	msgs[11].Attributes = map[string]string{"": "no name"}
	e.wantFailed(q.Publish(e.ctx, msgs...), map[int]error{4: queue.ErrInvalid, 11: queue.ErrInvalid})
	r := e.recorder()
	c := e.consume(q, r.ok())
	e.await("the ten good messages", func() bool { return r.finished() == 10 })
	c.stop()
	e.expectGone(q)
	r.expect("m4", 0)
	r.expect("m11", 0)
	for i := range 10 {
		if i != 4 {
			r.expect(fmt.Sprint("m", i), 1)
		}
	}
}

func publishNothing(e *env) {
	q := e.open()
	if err := q.Publish(e.ctx); err != nil {
		e.Errorf("Publish of no message: %v", err)
	}
}

func manyMessages(e *env) {
	q := e.open()
	const n = 120
	msgs := texts("m", n)
	for i := range msgs {
		if i%10 == 0 { // twelve of these are more than a request of SQS takes
			msgs[i].Attributes = map[string]string{"pad": strings.Repeat("x", 1000)}
			msgs[i].ID = fmt.Sprint("m", i)
			msgs[i].Body = append(msgs[i].Body, bytes.Repeat([]byte("."), 100_000)...)
		}
	}
	e.publish(q, msgs...)
	got, c := e.collect(q)
	e.await("all of them", func() bool { return got.len() >= n })
	c.stop()
	seen := map[string]int{}
	for _, d := range got.all() {
		seen[strings.TrimRight(string(d.Body), ".")]++
	}
	for i := range n {
		if k := seen[fmt.Sprint("m", i)]; k != 1 {
			e.Errorf("message %d arrived %d times", i, k)
		}
	}
}

func publishNeverWrites(e *env) {
	q := e.open()
	caps := q.Capabilities()
	body, attrs := []byte("a\x00b"), map[string]string{"k": "v", "e": ""}
	m := &queue.Message{ID: "id", Body: body[:3:3], Attributes: attrs}
	if caps.Delays {
		m.Delay = e.unit
	}
	want := *m
	const n = 8
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if err := q.Publish(e.ctx, m); err != nil {
				e.Errorf("Publish: %v", err)
			}
		})
	}
	wg.Wait() // the race detector watches
	got, c := e.collect(q)
	e.await("all of them", func() bool { return got.len() == n })
	c.stop()
	if m.ID != want.ID || m.Delay != want.Delay || !m.DeliverAt.IsZero() || string(m.Body) != "a\x00b" ||
		&m.Body[0] != &body[0] || !maps.Equal(m.Attributes, map[string]string{"k": "v", "e": ""}) || m.DedupID != "" {
		e.Errorf("Publish has changed its message to %+v", m)
	}
}

func publisherIsolated(e *env) {
	q := e.open()
	m := &queue.Message{Body: []byte("original"), Attributes: map[string]string{"k": "original"}}
	e.publish(q, m)
	copy(m.Body, "CHANGED!")
	m.Attributes["k"] = "changed"
	m.Attributes["more"] = "x"
	got, c := e.collect(q)
	e.await("the message", func() bool { return got.len() == 1 })
	c.stop()
	d := got.all()[0]
	if string(d.Body) != "original" || !maps.Equal(d.Attributes, map[string]string{"k": "original"}) {
		e.Errorf("got %q and %v; the publisher changed its message after Publish had returned", d.Body, d.Attributes)
	}
}

func handlerIsolated(e *env) {
	q := e.open()
	m := &queue.Message{ID: "id", Body: []byte("original"), Attributes: map[string]string{"k": "original"}}
	e.publish(q, m)
	var mu sync.Mutex
	var seen []string
	c := e.consume(q, func(_ context.Context, d *queue.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, fmt.Sprintf("%s %s %s %v", d.ID, d.Body, d.Attributes, d.OrderingKey))
		e.poke.tell()
		copy(d.Body, "CHANGED!")
		d.Attributes["k"], d.Attributes["more"] = "changed", "x"
		d.ID, d.BrokerID, d.OrderingKey, d.Native = "changed", "changed", "changed", nil
		d.Source, d.Failures, d.Attempt, d.Deadline = queue.Endpoint{}, 99, 99, time.Time{}
		switch len(seen) {
		case 1:
			return errWork
		case 2:
			return queue.RetryAfter(e.unit, errWork)
		case 3:
			return queue.Snooze(0)
		}
		return nil
	})
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(seen) }
	e.await("four deliveries", func() bool { return count() == 4 })
	c.stop()
	e.expectGone(q)
	want := fmt.Sprintf("%s %s %s %v", m.ID, m.Body, m.Attributes, "")
	for i, got := range seen {
		equal(e, fmt.Sprintf("delivery %d", i+1), got, want)
	}
}
