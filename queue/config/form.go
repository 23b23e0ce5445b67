package config

import (
	"maps"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/anyqueue/anyqueue/middleware"
)

// field is one key of a mapping. The parser and the schema are made of the same
// fields.
type field struct {
	name string
	form
	// doc is half a sentence for the schema: what it's for, its unit and limits.
	doc string
	// preset is the default where it's always the same; nil: doc tells.
	preset any
}

// form is what a value may be.
type form struct {
	read   setter
	schema func() *schema // nil: the key can't stand here
}

// single is a single value that parse reads; it gives a reason when it can't.
func single[T any](r *reader, to *T, s func() *schema, parse func(string) (T, string)) form {
	return form{func(path string, n *yaml.Node) {
		text, ok := r.scalar(path, n)
		if !ok {
			return
		}
		v, reason := parse(text)
		if reason == "" {
			*to = v
			return
		}
		if raw := resolve(n).Value; raw != text {
			reason += " (from " + quote(raw) + ")"
		}
		r.problem(n, path, reason)
	}, s}
}

// text is a text that isn't empty.
func (r *reader) text(to *string) form {
	return single(r, to, func() *schema { return textSchema(1) }, func(s string) (string, string) {
		if s == "" {
			return "", "is empty"
		}
		return s, ""
	})
}

// maybe is a text that may be empty.
func (r *reader) maybe(to *string) form {
	return single(r, to, func() *schema { return textSchema(0) }, func(s string) (string, string) { return s, "" })
}

// name is a text, or "off" for none.
func (r *reader) name(to *string) form {
	f := r.text(to)
	read := f.read
	f.read = func(path string, n *yaml.Node) {
		read(path, n)
		if *to == off {
			*to = ""
		}
	}
	return f
}

func (r *reader) boolean(to *bool) form {
	return single(r, to, func() *schema {
		return &schema{Type: types("boolean", "string"), Pattern: orVariable(boolPattern)}
	}, parseBool)
}

// integer is a whole number from least to most; most 0: without an end.
func (r *reader) integer(to *int, least, most int) form {
	return single(r, to, func() *schema { return integerSchema(least, most) }, func(s string) (int, string) {
		return parseInt(s, least, most)
	})
}

// failures is a number of failures, or "off" for any number.
func (r *reader) failures(to *int) form {
	return single(r, to, func() *schema {
		s := integerSchema(1, 0)
		s.Pattern = orVariable(off + "|" + intPattern)
		return s
	}, func(s string) (int, string) {
		if s == off {
			return 0, ""
		}
		return parseInt(s, 1, 0)
	})
}

// number is a number from least to most. Zero becomes none, if that's given.
func (r *reader) number(to *float64, least, most float64, none float64) form {
	return single(r, to, func() *schema {
		return &schema{Type: types("number", "string"), Pattern: orVariable(numberPattern), Minimum: &least, Maximum: &most}
	}, func(s string) (float64, string) {
		n, reason := parseNumber(s, least, most)
		if reason == "" && n == 0 {
			n = none
		}
		return n, reason
	})
}

// rate is a rate, or "off" for none.
func (r *reader) rate(to *float64) form {
	return single(r, to, func() *schema {
		return &schema{Type: types("string"), Pattern: orVariable(off + "|" + ratePattern), Examples: []any{"50/s", "100/m", off}}
	}, func(s string) (float64, string) {
		if s == off {
			return 0, ""
		}
		return parseRate(s)
	})
}

// over is a duration over zero.
func over(s string) (time.Duration, string) {
	d, reason := parseDuration(s)
	if reason == "" && d == 0 {
		return 0, s + " isn't over 0"
	}
	return d, reason
}

// duration is a duration over zero.
func (r *reader) duration(to *time.Duration) form {
	return single(r, to, func() *schema {
		return &schema{Type: types("string"), Pattern: orVariable(durationPattern)}
	}, over)
}

// period is a duration over zero, or "off" for the service's own.
func (r *reader) period(to *time.Duration) form {
	return single(r, to, func() *schema {
		return &schema{Type: types("string"), Pattern: orVariable(off + "|" + durationPattern), Examples: []any{off}}
	}, func(s string) (time.Duration, string) {
		if s == off {
			return 0, ""
		}
		return over(s)
	})
}

// optional is a duration, where zero or "off" becomes none.
func (r *reader) optional(to *time.Duration, none time.Duration) form {
	return single(r, to, func() *schema {
		zero := 0.0
		return &schema{
			Type: types("string", "integer"), Pattern: orVariable(off + "|0|" + durationPattern), Minimum: &zero, Maximum: &zero, Examples: []any{off},
		}
	}, func(s string) (time.Duration, string) {
		if s == off {
			return none, ""
		}
		d, reason := parseDuration(s)
		if reason == "" && d == 0 {
			d = none
		}
		return d, reason
	})
}

func (r *reader) exhausted(to *middleware.OnExhausted) form {
	return single(r, to, func() *schema {
		return &schema{AnyOf: []*schema{{Enum: []any{"skip", "block"}}, {Type: types("string"), Pattern: variablePattern}}}
	}, func(s string) (middleware.OnExhausted, string) {
		switch s {
		case "skip":
			return middleware.Skip, ""
		case "block":
			return middleware.Block, ""
		}
		return 0, quote(s) + " " + notExhausted
	})
}

// refused is a key that's known but can't stand here.
func (r *reader) refused(reason string) form {
	return form{read: func(path string, n *yaml.Node) { r.problem(n, path, reason) }}
}

// mapping is a mapping whose keys are known.
func (r *reader) mapping(fields []field) form {
	return form{
		func(path string, n *yaml.Node) { r.section(path, n, fields) },
		func() *schema { return objectSchema(fields) },
	}
}

// isOff reports whether a value is the word "off" where a mapping could stand.
func isOff(n *yaml.Node) bool {
	s := resolve(n)
	return s.Kind == yaml.ScalarNode && s.Value == off
}

// notMapping reports a value that can't be what stands in for a mapping.
func (r *reader) notMapping(path string, n *yaml.Node, example, list string) bool {
	switch s := resolve(n); {
	case s.Kind == yaml.ScalarNode && s.Tag != "!!null":
		r.problem(n, path, "isn't off or a mapping such as "+example)
	case s.Kind == yaml.SequenceNode:
		r.problem(n, path, "is a list; "+list)
	default:
		return false
	}
	return true
}

// deadLetter is a mapping, or "off" for none.
func (r *reader) deadLetter(to **DeadLetter) form {
	return form{func(path string, n *yaml.Node) {
		if isOff(n) {
			*to = nil
			return
		}
		if r.notMapping(path, n, "{queue: NAME, max_age: 24h}", "a queue has one dead-letter queue") {
			return
		}
		if *to == nil {
			*to = &DeadLetter{}
		}
		r.section(path, n, r.deadLetterFields(*to))
	}, func() *schema {
		return orOff(objectSchema(r.deadLetterFields(&DeadLetter{})))
	}}
}

// tags are texts by name, added to those that are inherited, or "off" for none.
func (r *reader) tags(to *map[string]string) form {
	return form{func(path string, n *yaml.Node) {
		if isOff(n) {
			*to = nil
			return
		}
		if r.notMapping(path, n, "{team: crm}", "tags have names") {
			return
		}
		tags := maps.Clone(*to)
		if tags == nil {
			tags = map[string]string{}
		}
		for _, e := range r.entries(path, n) {
			name := e.key.Value
			at := join(path, name)
			if strings.TrimSpace(name) == "" {
				r.problem(e.key, path, "a tag has no name")
				continue
			}
			r.mark(at, e)
			var value string
			r.maybe(&value).read(at, e.value)
			tags[name] = value
		}
		*to = tags
	}, func() *schema {
		return orOff(&schema{
			Type: types("object", "null"), AdditionalProperties: textSchema(0),
			PropertyNames: &schema{Pattern: `\S`}, Examples: []any{map[string]string{"team": "crm"}},
		})
	}}
}
