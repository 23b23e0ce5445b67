package config

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/anyqueue/anyqueue/middleware"
)

// Parse reads a file. The name is for error texts only. Variables are looked up
// with lookup, such as os.LookupEnv; with a nil lookup none is set.
//
// Everything that is wrong is reported at once, as an *Error. A file that
// Parse accepts can still name a backend that the program doesn't have; OpenFile
// checks that. Parse makes no request and may be called concurrently.
func Parse(name string, data []byte, lookup func(string) (string, bool)) (*File, error) {
	if lookup == nil {
		lookup = func(string) (string, bool) { return "", false }
	}
	f := &File{Name: name, at: map[string]position{}}
	root, err := document(name, data)
	if err != nil {
		return nil, err
	}
	r := &reader{file: f, lookup: lookup, merged: map[*yaml.Node][]entry{}}
	r.root(root)
	if resolve(root).Kind == yaml.MappingNode {
		// What could be read is checked in any case: a value that was refused is
		// left at its default.
		r.problems = append(r.problems, f.validate()...)
	}
	if err := newError(r.problems); err != nil {
		return nil, err
	}
	return f, nil
}

// document returns the only document of data.
func document(name string, data []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, next yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF) || err == nil && doc.Content[0].Tag == "!!null":
		return nil, newError([]Problem{{File: name, Reason: "is empty"}})
	case err != nil:
		return nil, newError([]Problem{syntax(name, data, err)})
	}
	switch err := dec.Decode(&next); {
	case errors.Is(err, io.EOF):
		return doc.Content[0], nil
	case err != nil:
		return nil, newError([]Problem{syntax(name, data, err)})
	}
	return nil, newError([]Problem{{File: name, Line: next.Line, Column: next.Column, Reason: "a second document; a file is one document"}})
}

var syntaxLine = regexp.MustCompile(`^yaml: (?:line [0-9]+: )?(?s:(.*))$`)

// syntax makes a problem of an error of the YAML parser. The line that the
// parser tells, if any, is where the innermost block begins, or the one before;
// what people look for is the first line that can't follow what precedes it.
func syntax(name string, data []byte, err error) Problem {
	p := Problem{File: name, Reason: "not YAML: " + syntaxLine.ReplaceAllString(err.Error(), "$1")}
	end, budget := len(data), 16<<20
	if _, read := readable(data); read < end {
		end = read // what comes later didn't matter
	}
	for end > 0 && budget > 0 {
		start := bytes.LastIndexByte(data[:end-1], '\n') + 1
		budget -= end
		if ok, _ := readable(data[:start]); !ok {
			end = start
			continue
		}
		p.Line = bytes.Count(data[:start], []byte("\n")) + 1
		line := data[start:end]
		if bytes.ContainsRune(line[:len(line)-len(bytes.TrimLeft(line, " \t"))], '\t') {
			p.Reason += "; indent with spaces, not tabs"
		}
		if bytes.Contains(line, []byte("${")) && strings.Contains(p.Reason, "' or '") {
			p.Reason += "; inside of braces a variable needs quotes: \"${NAME}\""
		}
		break
	}
	return p
}

// readable reports whether data is YAML, and how much of it was read to tell.
func readable(data []byte) (ok bool, read int) {
	r := bytes.NewReader(data)
	dec := yaml.NewDecoder(r)
	for {
		var doc yaml.Node
		if err := dec.Decode(&doc); err != nil {
			return errors.Is(err, io.EOF), len(data) - r.Len()
		}
	}
}

// root reads the whole file.
func (r *reader) root(n *yaml.Node) {
	var backend string
	var defaults, queues, limits *yaml.Node
	later := func(to **yaml.Node) setter {
		return func(_ string, n *yaml.Node) { *to = n }
	}
	r.section("", n, map[string]setter{
		"backend":  r.text(&backend),
		"ensure":   r.boolean(&r.file.Ensure),
		"defaults": later(&defaults),
		"limits":   later(&limits),
		"queues":   later(&queues),
	})
	// What is inherited is read before what inherits it, in whatever order the
	// file has them.
	base := Queue{Backend: backend}
	if defaults != nil {
		fields := r.queue(&base)
		fields["backend"] = r.refused("the default backend stands at the top of the file")
		fields["address"] = r.refused("an address can't be a default: no two queues have the same")
		r.section("defaults", defaults, fields)
	}
	if limits != nil {
		for _, e := range r.entries("limits", limits) {
			path := join("limits", e.key.Value)
			l := &Limit{Name: e.key.Value}
			r.file.Limits = append(r.file.Limits, l)
			r.mark(path, e)
			r.section(path, e.value, map[string]setter{
				"concurrency": r.integer(&l.Concurrency, 1),
				"rate":        r.rate(&l.Rate),
			})
		}
	}
	if queues != nil {
		for _, e := range r.entries("queues", queues) {
			path := join("queues", e.key.Value)
			q := base
			q.Name = e.key.Value
			if base.DeadLetter != nil {
				dl := *base.DeadLetter
				q.DeadLetter = &dl
			}
			r.file.Queues = append(r.file.Queues, &q)
			r.mark(path, e)
			r.section(path, e.value, r.queue(&q))
		}
	}
	r.file.inheritDeadLetters()
}

// queue returns the keys of a queue, or of the defaults.
func (r *reader) queue(q *Queue) map[string]setter {
	return map[string]setter{
		"backend":       r.text(&q.Backend),
		"address":       r.maybe(&q.Address),
		"ordered":       r.boolean(&q.Ordered),
		"concurrency":   r.integer(&q.Concurrency, 1),
		"delay":         r.optional(&q.Delay, 0),
		"lease":         r.duration(&q.Lease),
		"limit":         r.name(&q.Limit),
		"rate":          r.rate(&q.Rate),
		"timeout":       r.optional(&q.Timeout, 0),
		"drain_timeout": r.optional(&q.DrainTimeout, -1),
		"max_extension": r.duration(&q.MaxExtension),
		"retry": func(path string, n *yaml.Node) {
			r.section(path, n, map[string]setter{
				"min":      r.duration(&q.Retry.Min),
				"max":      r.duration(&q.Retry.Max),
				"in_place": r.integer(&q.Retry.InPlace, 0),
			})
		},
		"dead_letter": func(path string, n *yaml.Node) {
			switch s := resolve(n); {
			case s.Kind == yaml.ScalarNode && s.Value == off:
				q.DeadLetter = nil
				return
			case s.Kind == yaml.ScalarNode && s.Tag != "!!null":
				r.problem(n, path, "isn't off or a mapping such as {queue: NAME, max_age: 24h}")
				return
			case s.Kind == yaml.SequenceNode:
				r.problem(n, path, "is a list; a queue has one dead-letter queue")
				return
			}
			if q.DeadLetter == nil {
				q.DeadLetter = &DeadLetter{}
			}
			r.section(path, n, map[string]setter{
				"queue":        r.text(&q.DeadLetter.Queue),
				"max_age":      r.optional(&q.DeadLetter.MaxAge, -1),
				"max_failures": r.failures(&q.DeadLetter.MaxFailures),
				"on_exhausted": r.exhausted(&q.DeadLetter.OnExhausted),
			})
		},
	}
}

// failures is a number of failures, or "off" for any number.
func (r *reader) failures(to *int) setter {
	return value(r, to, func(s string) (int, string) {
		if s == off {
			return 0, ""
		}
		return parseInt(s, 1)
	})
}

func (r *reader) exhausted(to *middleware.OnExhausted) setter {
	return value(r, to, func(s string) (middleware.OnExhausted, string) {
		switch s {
		case "skip":
			return middleware.Skip, ""
		case "block":
			return middleware.Block, ""
		}
		return 0, quote(s) + " " + notExhausted
	})
}

// inheritDeadLetters takes an inherited policy away from queues that it can't
// be meant for: the dead-letter queues themselves, and all when the defaults
// name no queue.
func (f *File) inheritDeadLetters() {
	target := map[string]bool{}
	for _, q := range f.Queues {
		if q.DeadLetter != nil {
			target[q.DeadLetter.Queue] = true
		}
	}
	for _, q := range f.Queues {
		if _, own := f.at[join("queues", q.Name)+".dead_letter"]; own || q.DeadLetter == nil {
			continue
		}
		if target[q.Name] || q.DeadLetter.Queue == "" {
			q.DeadLetter = nil
		}
	}
}
