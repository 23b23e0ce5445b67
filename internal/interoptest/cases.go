package interoptest

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"testing"

	"github.com/anyqueue/anyqueue/queue"
)

// Case is a message that goes over the border, both ways.
type Case struct {
	Name       string
	Body       []byte
	ID         string
	Attributes map[string]string
}

// Cases are what every system carries.
func Cases() []Case {
	return []Case{
		{"text", []byte("hello"), "", nil},
		{"text of many kinds", []byte("ä € 😀 <xml/> \t\r\n \"q\" \\ \u2028"), "", map[string]string{"k": "ä€😀 \n\t", "With.Dots_and-dashes.9": "v"}},
		{"bytes", []byte{0, 1, 2, 0xfe, 0xff}, "", nil},
		{"every byte", everyByte(), "id-1", map[string]string{"k": "v"}},
		{"a NUL in a text", []byte("a\x00b"), "", nil},
		{"what Unicode has and XML hasn't", []byte("a\ufffeb\uffff"), "", nil},
		{"half a rune", []byte("ä")[:1], "", nil},
		{"nothing", nil, "", nil},
		{"an ID of its own", []byte("m"), "order/17 ä", map[string]string{"k": "v"}},
		{"JSON", []byte(`{"a":[1,2.50,"x"]}`), "", map[string]string{"content-type": "application/json"}},
		{"base64 that's only text", []byte("aGVsbG8="), "", nil},
		{"200 KiB", bytes.Repeat([]byte{0x80, 'x'}, 100<<10), "", nil},
		{"nine attributes and an ID", []byte("m"), "nine", Attributes(9)},
	}
}

func everyByte() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// Attributes returns n of them.
func Attributes(n int) map[string]string {
	out := make(map[string]string, n)
	for i := range n {
		out[fmt.Sprint("a", i)] = fmt.Sprint("value ", i)
	}
	return out
}

// Message returns the case as this library publishes it.
func (c *Case) Message() *queue.Message {
	return &queue.Message{ID: c.ID, Body: c.Body, Attributes: c.Attributes}
}

// Line returns the case as a program reads it.
func (c *Case) Line() Line {
	l := Line{ID: c.ID, Body: c.Body}
	for k, v := range c.Attributes {
		l.set(k, v)
	}
	return l
}

func (l *Line) set(k string, v any) {
	if l.Attributes == nil {
		l.Attributes = map[string]any{}
	}
	l.Attributes[k] = v
}

// LineOf returns a delivery as a program would have written it.
func LineOf(d *queue.Delivery) Line {
	l := Line{ID: d.ID, BrokerID: d.BrokerID, Body: d.Body, Key: d.OrderingKey}
	for k, v := range d.Attributes {
		l.set(k, v)
	}
	return l
}

// ExpectCases wants that these cases came, unchanged, in any order, and nothing else.
// One without an ID has the broker's.
func ExpectCases(t *testing.T, want []Case, got []Line) {
	t.Helper()
	for _, problem := range compare(want, got) {
		t.Error(problem)
	}
}

func compare(want []Case, got []Line) (problems []string) {
	left := map[int]Line{}
	for i, l := range got {
		if l.BrokerID == "" {
			problems = append(problems, "no broker id: "+l.brief())
		}
		if l.ID == l.BrokerID {
			l.ID = ""
		}
		left[i] = l
	}
	for _, c := range want {
		found := false
		for i, l := range left {
			if found = c.is(l); found {
				delete(left, i)
				break
			}
		}
		if !found {
			line := c.Line()
			problems = append(problems, c.Name+": didn't come, or changed; want "+line.brief())
		}
	}
	for _, l := range left {
		problems = append(problems, "came as well: "+l.brief())
	}
	return problems
}

func (c *Case) is(l Line) bool {
	want := c.Line()
	return l.ID == want.ID && bytes.Equal(l.Body, want.Body) && maps.EqualFunc(l.Attributes, want.Attributes, func(a, b any) bool { return reflect.DeepEqual(a, b) })
}

// brief shows a line in a test's output.
func (l *Line) brief() string {
	const most = 300
	s := fmt.Sprintf("id %q, attributes %q, body %q", l.ID, l.Attributes, l.Body)
	if len(s) > most {
		s = s[:most] + "..."
	}
	return s
}
