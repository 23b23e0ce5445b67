package config

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Parse reads a file. The name is for error texts only. Variables are looked up
// with lookup, such as os.LookupEnv; with a nil lookup none is set.
//
// Everything that is wrong is reported at once, as an *Error. A file that
// Parse accepts can still name a backend that the program doesn't have; OpenFile
// checks that. Parse makes no request and may be called concurrently.
func Parse(name string, data []byte, lookup func(string) (string, bool)) (*File, error) {
	f, problems := parse(name, data, lookup)
	if err := newError(problems); err != nil {
		return nil, err
	}
	return f, nil
}

// parse returns what could be read, and everything that's wrong with it.
func parse(name string, data []byte, lookup func(string) (string, bool)) (*File, []Problem) {
	if lookup == nil {
		lookup = func(string) (string, bool) { return "", false }
	}
	f := &File{Name: name, at: map[string]position{}}
	root, wrong := document(name, data)
	if wrong != nil {
		return f, []Problem{*wrong}
	}
	r := &reader{file: f, lookup: lookup, merged: map[*yaml.Node][]entry{}}
	r.root(root)
	if resolve(root).Kind == yaml.MappingNode {
		// What could be read is checked in any case: a value that was refused is
		// left at its default.
		r.problems = append(r.problems, f.validate()...)
	}
	return f, r.problems
}

// document returns the only document of data.
func document(name string, data []byte) (*yaml.Node, *Problem) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, next yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF) || err == nil && doc.Content[0].Tag == "!!null":
		return nil, &Problem{File: name, Reason: "is empty"}
	case err != nil:
		return nil, syntax(name, data, err)
	}
	switch err := dec.Decode(&next); {
	case errors.Is(err, io.EOF):
		return doc.Content[0], nil
	case err != nil:
		return nil, syntax(name, data, err)
	}
	return nil, &Problem{File: name, Line: next.Line, Column: next.Column, Reason: "a second document; a file is one document"}
}

var syntaxLine = regexp.MustCompile(`^yaml: (?:line [0-9]+: )?(?s:(.*))$`)

// syntax makes a problem of an error of the YAML parser. The line that the
// parser tells, if any, is where the innermost block begins, or the one before;
// what people look for is the first line that can't follow what precedes it.
func syntax(name string, data []byte, err error) *Problem {
	p := &Problem{File: name, Reason: "not YAML: " + syntaxLine.ReplaceAllString(err.Error(), "$1")}
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
	var t top
	r.section("", n, r.topFields(&t))
	base := Queue{Backend: t.backend}
	if t.defaults != nil {
		r.section("defaults", t.defaults, r.defaultFields(&base))
	}
	if t.limits != nil {
		for _, e := range r.entries("limits", t.limits) {
			path := join("limits", e.key.Value)
			l := &Limit{Name: e.key.Value}
			r.file.Limits = append(r.file.Limits, l)
			r.mark(path, e)
			r.section(path, e.value, r.limitFields(l))
		}
	}
	if t.queues != nil {
		for _, e := range r.entries("queues", t.queues) {
			path := join("queues", e.key.Value)
			q := base
			q.Name = e.key.Value
			if base.DeadLetter != nil {
				dl := *base.DeadLetter
				q.DeadLetter = &dl
			}
			q.Tags = maps.Clone(base.Tags)
			r.file.Queues = append(r.file.Queues, &q)
			r.mark(path, e)
			r.section(path, e.value, r.queueFields(&q))
		}
	}
	r.file.disinherit()
}

// disinherit takes away what queues can't be meant to inherit: a policy that they
// would be the dead-letter queue of, or that names none, and, dead-letter queues,
// how long their sources keep messages.
func (f *File) disinherit() {
	target := map[string]bool{}
	for _, q := range f.Queues {
		if q.DeadLetter != nil {
			target[q.DeadLetter.Queue] = true
		}
	}
	for _, q := range f.Queues {
		inherits := func(key string) bool {
			_, own := f.at[join("queues", q.Name)+"."+key]
			return !own
		}
		if q.DeadLetter != nil && (target[q.Name] || q.DeadLetter.Queue == "") && inherits("dead_letter") {
			q.DeadLetter = nil
		}
		if target[q.Name] && inherits("retention") {
			q.Retention = 0
		}
	}
}
