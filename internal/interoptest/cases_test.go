package interoptest

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
)

// The comparison is what the tests of interop stand on.
func TestWhatChangedOnItsWayIsFound(t *testing.T) {
	t.Parallel()
	came := func() []Line {
		var lines []Line
		for _, c := range Cases() {
			l := c.Line()
			l.BrokerID = "b"
			if l.ID == "" {
				l.ID = l.BrokerID
			}
			lines = append(lines, l)
		}
		slices.Reverse(lines)
		return lines
	}
	assert.Empty(t, compare(Cases(), came()))
	last := len(Cases()) - 1
	for name, change := range map[string]func(lines []Line) []Line{
		"one is missing":       func(lines []Line) []Line { return lines[1:] },
		"one came twice":       func(lines []Line) []Line { return append(lines, lines[0]) },
		"a byte":               func(lines []Line) []Line { lines[last].Body = []byte("hellp"); return lines },
		"an attribute":         func(lines []Line) []Line { lines[0].Attributes["a0"] = "other"; return lines },
		"an attribute's type":  func(lines []Line) []Line { lines[0].Attributes["a0"] = []byte("value 0"); return lines },
		"an attribute too few": func(lines []Line) []Line { delete(lines[0].Attributes, "a0"); return lines },
		"an attribute of ours": func(lines []Line) []Line { lines[0].Attributes["queue-meta"] = "{}"; return lines },
		"an ID":                func(lines []Line) []Line { lines[0].ID = "other"; return lines },
		"an ID that's lost":    func(lines []Line) []Line { lines[0].ID = lines[0].BrokerID; return lines },
		"an ID from nowhere":   func(lines []Line) []Line { lines[last].ID = "other"; return lines },
		"no broker id":         func(lines []Line) []Line { lines[0].BrokerID = ""; return lines },
	} {
		assert.NotEmpty(t, compare(Cases(), change(came())), name)
	}
}
