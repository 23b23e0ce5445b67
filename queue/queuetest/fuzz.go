package queuetest

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/anyqueue/anyqueue/queue"
)

// FuzzRoundTrip publishes arbitrary bodies, attributes and IDs, and fails unless
// each arrives as it was or is refused with a typed error. What every backend
// can carry must not be refused. It runs on real time, whatever h says; call it
// from a fuzz test:
//
//	func FuzzRoundTrip(f *testing.F) { queuetest.FuzzRoundTrip(f, harness) }
func FuzzRoundTrip(f *testing.F, h Harness) {
	h.Virtual = false
	h.validate(f)
	for _, b := range bodies() {
		f.Add(b, "id", "name", "value")
	}
	f.Add([]byte("x"), "", "", "")
	f.Add([]byte(nil), "", "queue-meta", "{}")
	f.Add([]byte("-"), "\xff", "a..b", "\x00")
	f.Add([]byte{0}, strings.Repeat("i", 2000), "AWS.x", strings.Repeat("\uFFFF", 400))
	f.Add([]byte("{"), `"`, "goog", `{"id":"x"}`)
	q := openOne(f, &h)
	f.Fuzz(func(t *testing.T, body []byte, id, name, value string) {
		m := &queue.Message{ID: id, Body: body}
		if name != "" || value != "" {
			m.Attributes = map[string]string{name: value}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := q.Publish(ctx, m); err != nil {
			if !refusal(err) {
				t.Fatalf("Publish: %v, want a typed refusal", err)
			}
			if simple(m) {
				t.Fatalf("Publish refused what every backend carries: %v", err)
			}
			return
		}
		if _, ok := m.Attributes[""]; ok || strings.HasPrefix(name, queue.ReservedPrefix) || !utf8.ValidString(name+value+id) {
			t.Fatalf("Publish accepted the attribute %q with the value %q and the ID %q", name, value, id)
		}
		d := receiveOne(ctx, t, q)
		if err := q.Settle(ctx, queue.Settlement{Delivery: d}); err != nil {
			t.Fatalf("Settle: %v", err)
		}
		if !bytes.Equal(d.Body, body) {
			t.Errorf("body: sent %q, got %q", body, d.Body)
		}
		if len(d.Attributes) != len(m.Attributes) || len(m.Attributes) > 0 && !maps.Equal(d.Attributes, m.Attributes) {
			t.Errorf("attributes: sent %q, got %q", m.Attributes, d.Attributes)
		}
		if id != "" && d.ID != id || d.ID == "" {
			t.Errorf("ID: sent %q, got %q", id, d.ID)
		}
	})
}

func receiveOne(ctx context.Context, t *testing.T, q queue.Queue) *queue.Delivery {
	t.Helper()
	for {
		ds, err := q.Receive(ctx, 1)
		if len(ds) > 0 {
			return ds[0]
		}
		if err != nil || ctx.Err() != nil {
			t.Fatalf("a message that was accepted hasn't arrived: %v", err)
		}
	}
}

// refusal tells errors that say what's wrong with a message.
func refusal(err error) bool {
	var le *queue.LimitError
	return errors.Is(err, queue.ErrInvalid) || errors.Is(err, queue.ErrUnsupported) || errors.As(err, &le)
}

// simple tells messages that every backend carries, whatever their body.
func simple(m *queue.Message) bool {
	if len(m.Body) > 500_000 || len(m.ID) > 100 || !utf8.ValidString(m.ID) {
		return false
	}
	for k, v := range m.Attributes {
		if k == "" || len(k) > 256 || len(v) > 100 || !utf8.ValidString(v) || strings.HasPrefix(k, queue.ReservedPrefix) ||
			strings.HasPrefix(strings.ToLower(k), "goog") || strings.HasPrefix(strings.ToLower(k), "aws") || strings.HasPrefix(strings.ToLower(k), "amazon") {
			return false
		}
		for _, r := range k {
			if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-') {
				return false
			}
		}
	}
	return true
}
