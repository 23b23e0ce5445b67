package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type panickyError struct{}

func (*panickyError) Error() string { panic("no text") }

func TestDeadLetterTellsWhatHappened(t *testing.T) {
	t.Parallel()
	first := time.Date(2026, 11, 20, 1, 2, 3, 456789, time.UTC)
	now := first.Add(30 * time.Hour)
	d := &Delivery{
		Message: Message{ID: "i-1", Body: []byte("x"), Attributes: map[string]string{"a": "b"}, OrderingKey: "k", DedupID: "d", Options: []MessageOption{testOption("aws_sqs")}},
		Source:  Endpoint{"aws_sqs", "orders"}, Attempt: 9, Failures: 4, EnqueuedAt: first,
	}
	m := NewDeadLetter(d, fmt.Errorf("update: %w", &fs.PathError{Op: "open", Path: "x", Err: os.ErrNotExist}), ReasonFailures, now)
	assert.Equal(t, "k", m.OrderingKey)
	assert.Empty(t, m.DedupID, "a dead letter must never be taken for a repeat")
	assert.Empty(t, m.Options)
	for name, r := range wires() {
		m := *m
		m.OrderingKey = ""
		back := r.carry(t, 0, &m, now)
		assert.Equal(t, &DeadLetterInfo{
			ID: "i-1", Source: Endpoint{"aws_sqs", "orders"}, Reason: ReasonFailures, Failures: 5, Attempt: 9,
			Error: "update: open x: file does not exist", ErrorType: "*errors.errorString", Fingerprint: back.DeadLetter.Fingerprint,
			FirstAt: back.DeadLetter.FirstAt, LastAt: now.Truncate(time.Millisecond),
		}, back.DeadLetter, name)
		assert.WithinDuration(t, first, back.DeadLetter.FirstAt, time.Millisecond, name)
		assert.Len(t, back.DeadLetter.Fingerprint, 16, name)
		assert.Zero(t, back.Failures, name)
		assert.Equal(t, now.Truncate(time.Millisecond), back.AgeFrom().UTC(), name)
	}
}

func TestDeadLetterWithoutAnError(t *testing.T) {
	t.Parallel()
	m := NewDeadLetter(&Delivery{}, nil, ReasonAge, time.Now())
	assert.Equal(t, ReasonAge, m.meta.deadLetter.Reason)
	assert.Empty(t, m.meta.deadLetter.Fingerprint)
}

func TestTextsOfADeadLetterAreBoundedAndValid(t *testing.T) {
	t.Parallel()
	m := NewDeadLetter(&Delivery{}, &PanicError{Value: "\xff" + strings.Repeat("é", 20000), Stack: []byte(strings.Repeat("€", 20000))}, ReasonAge, time.Now())
	dl := m.meta.deadLetter
	assert.LessOrEqual(t, len(dl.Error), 8<<10)
	assert.True(t, strings.HasPrefix(dl.Error, "panic: \uFFFDéé"))
	assert.True(t, strings.HasSuffix(dl.Error, "é"))
	assert.LessOrEqual(t, len(dl.Stack), 16<<10)
	assert.True(t, strings.HasSuffix(dl.Stack, "€"))

	m = NewDeadLetter(&Delivery{}, fmt.Errorf("x: %w", (*panickyError)(nil)), ReasonAge, time.Now())
	assert.NotEmpty(t, m.meta.deadLetter.Error)
}

func TestDeadLetterIsCutInOrder(t *testing.T) {
	t.Parallel()
	now := time.Now()
	r := wires()["sqs"].limited(2000)
	letter := func(body int, attributes int) *Delivery {
		d := &Delivery{Message: Message{ID: "i-1", Body: []byte(strings.Repeat("b", body)), Attributes: map[string]string{}}, EnqueuedAt: now}
		for i := range attributes {
			d.Attributes[fmt.Sprint("k", i)] = "v"
		}
		err := &PanicError{Value: strings.Repeat("e", 300), Stack: []byte(strings.Repeat("s", 500))}
		got := r.carry(t, 0, NewDeadLetter(d, err, ReasonAge, now), now)
		require.Equal(t, d.Attributes, got.Attributes)
		return got
	}
	raw := func(d *Delivery) int {
		enc, err := r.wire.Encode(hopMessage(d, time.Time{}, 0))
		require.NoError(t, err)
		n := 0
		for k := range enc.Attributes {
			if k != MetaAttribute {
				n++
			}
		}
		return n
	}
	whole := letter(100, 2)
	assert.Len(t, whole.DeadLetter.Stack, 500)
	assert.Len(t, whole.DeadLetter.Error, 307)

	stack := letter(1000, 2)
	assert.Len(t, stack.DeadLetter.Error, 307)
	assert.NotEmpty(t, stack.DeadLetter.Stack)
	assert.Less(t, len(stack.DeadLetter.Stack), 500)

	text := letter(1500, 2)
	assert.Empty(t, text.DeadLetter.Stack)
	assert.NotEmpty(t, text.DeadLetter.Error)
	assert.Less(t, len(text.DeadLetter.Error), 307)

	folded := letter(100, 10)
	assert.Len(t, folded.DeadLetter.Stack, 500, "too many attributes cost no history")
	assert.Equal(t, 9, raw(folded))

	out := letter(1850, 2)
	assert.Nil(t, out.DeadLetter)
	assert.Equal(t, "i-1", out.ID)

	bare := letter(2000-2*9, 2)
	assert.Empty(t, bare.ID)
}

func TestRedrivenMessageStartsAnew(t *testing.T) {
	t.Parallel()
	first := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	r := wires()["sqs"]
	d := r.wire.Decode([]byte("x"), map[string]string{"a": "b"}, nil)
	d.FillFromBroker("b-1", first)
	d.Failures = 7
	for round := 1; round <= 2; round++ {
		failed := first.Add(time.Duration(round) * 100 * time.Hour)
		letter := r.carry(t, 0, NewDeadLetter(d, &PanicError{Value: 1, Stack: []byte("s")}, ReasonAge, failed), failed)
		letter.FillFromBroker("b-2", failed)
		assert.Equal(t, round-1, letter.DeadLetter.Redriven)
		moved := failed.Add(time.Hour)
		d = r.carry(t, 0, redriven(letter, moved, &RedriveOptions{}), moved)
		d.FillFromBroker("b-3", moved)
		assert.Equal(t, "b-1", d.ID)
		assert.True(t, d.EnqueuedAt.Equal(first))
		assert.True(t, d.AgeFrom().Equal(moved))
		assert.Zero(t, d.Failures)
		assert.Equal(t, round, d.DeadLetter.Redriven)
		assert.Equal(t, "panic: 1", d.DeadLetter.Error)
		assert.Empty(t, d.DeadLetter.Stack)
		assert.Equal(t, map[string]string{"a": "b"}, d.Attributes)
	}
}

func TestFingerprintGroupsLikeFailures(t *testing.T) {
	t.Parallel()
	same := map[string][2]error{
		"numbers":     {errors.New("order 17 failed after 3 tries"), errors.New("order 4 failed after 12 tries")},
		"uuids":       {errors.New("no lead 0190b4b8-0b5c-7cc0-8d2a-6a1a0a9f4b33"), errors.New("no lead 7b3f1e52-95d4-4a3e-b6a5-0d8e9c2f1a44")},
		"quoted":      {errors.New(`lead "a \"b\" c" unknown`), errors.New(`lead "x" unknown`)},
		"identifiers": {errors.New("customer cus_9s6XKzkNRiz8i3 gone"), errors.New("customer cus_AbC1 gone")},
		"durations":   {errors.New("timeout after 1.5s (min 10ms)"), errors.New("timeout after 30s (min 2.5µs)")},
		"addresses":   {errors.New("dial tcp 10.0.0.1:443: refused"), errors.New("dial tcp 192.168.1.20:8443: refused")},
		"times":       {errors.New("until 2026-11-22T08:00:00Z"), errors.New("until 2025-01-02T03:04:05.678Z")},
		"hex":         {errors.New("at 0xc000123 in 5f1c"), errors.New("at 0xdeadbeef1 in a0b9")},
		"wrapped":     {fmt.Errorf("a 1: %w", errTest), fmt.Errorf("a 2: %w", errTest)},
	}
	for name, pair := range same {
		assert.Equal(t, Fingerprint(pair[0]), Fingerprint(pair[1]), name)
	}
	different := []error{
		errors.New("order failed"), errors.New("lead failed"), &fs.PathError{Op: "order", Path: "failed", Err: os.ErrExist}, &PanicError{Value: "order failed"},
		errors.Join(errTest, errors.New("x")),
	}
	seen := map[string]error{}
	for _, err := range different {
		f := Fingerprint(err)
		assert.Len(t, f, 16)
		assert.NotContains(t, seen, f, "%v", err)
		seen[f] = err
	}
	assert.Empty(t, Fingerprint(nil))
}

func panicOf(fn func()) (err *PanicError) {
	defer func() { err = &PanicError{Value: recover(), Stack: debug.Stack()} }()
	fn()
	return nil
}

func panicsHere(n int) { panic(n) }

type panicker struct{ next *panicker }

func (p *panicker) nilPointer() *panicker { return p.next.next }

func TestFingerprintOfAPanicTellsItsPlace(t *testing.T) {
	t.Parallel()
	a, b := panicOf(func() { panicsHere(1) }), panicOf(func() { panicsHere(2) })
	elsewhere := panicOf(func() { panic(3) })
	assert.Equal(t, Fingerprint(a), Fingerprint(b))
	assert.NotEqual(t, Fingerprint(a), Fingerprint(elsewhere))
	assert.Contains(t, panicSite(string(a.Stack)), "queue.panicsHere:")

	runtime := panicOf(func() { (&panicker{}).nilPointer() })
	assert.Contains(t, panicSite(string(runtime.Stack)), "queue.(*panicker).nilPointer:")
	assert.Equal(t, "runtime.errorString", errorType(runtime))

	again := panicOf(func() {
		defer func() { panic(recover()) }()
		panicsHere(4)
	})
	assert.Contains(t, panicSite(string(again.Stack)), "queue.panicsHere:", "the first panic counts")
	assert.Empty(t, panicSite("no stack"))
}

func TestErrorTypeIsTheInnermost(t *testing.T) {
	t.Parallel()
	path := &fs.PathError{Op: "a", Path: "b", Err: nil}
	assert.Equal(t, "*fs.PathError", errorType(fmt.Errorf("x: %w", path)))
	assert.Equal(t, "*fs.PathError", errorType(errors.Join(fmt.Errorf("x: %w", path), errTest)))
	assert.Equal(t, "*queue.LimitError", errorType(NewPublishError([]error{nil, &LimitError{}})))
	assert.Equal(t, "*queue.PanicError", errorType(&PanicError{Value: 1}))
}
