package config

import (
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// position is a place in the file, from 1.
type position struct{ line, column int }

// reader walks the nodes of one file and gathers what is wrong with it.
type reader struct {
	file     *File
	lookup   func(string) (string, bool)
	problems []Problem

	// merged holds the entries of each mapping that has been seen; nil while
	// they're being gathered, which tells a mapping that contains itself.
	merged map[*yaml.Node][]entry
}

// entry is one key of a mapping with its value.
type entry struct {
	key, value *yaml.Node
}

// setter reads one value.
type setter func(path string, n *yaml.Node)

func (r *reader) problem(n *yaml.Node, path, reason string) {
	r.problems = append(r.problems, Problem{File: r.file.Name, Line: n.Line, Column: n.Column, Path: path, Reason: reason})
}

// section reads a mapping whose keys are known.
func (r *reader) section(path string, n *yaml.Node, fields []field) {
	for _, e := range r.entries(path, n) {
		key := join(path, e.key.Value)
		if i := slices.IndexFunc(fields, func(f field) bool { return f.name == e.key.Value }); i >= 0 {
			r.mark(key, e)
			fields[i].read(key, e.value)
			continue
		}
		known := make([]string, len(fields))
		for i, f := range fields {
			known[i] = f.name
		}
		r.problem(e.key, path, unknown("unknown key", e.key.Value, known))
	}
}

// mark remembers where path stands: a single value by itself, anything longer
// by its key.
func (r *reader) mark(path string, e entry) {
	at := e.value
	if resolve(at).Kind != yaml.ScalarNode {
		at = e.key
	}
	r.file.at[path] = position{at.Line, at.Column}
}

// entries returns the entries of a mapping, the ones merged with << last, each
// key once. Nothing (null) is an empty mapping.
func (r *reader) entries(path string, n *yaml.Node) []entry {
	m := resolve(n)
	if known, seen := r.merged[m]; seen {
		if known == nil {
			r.problem(n, path, "contains itself")
		}
		return known
	}
	switch {
	case m.Kind == yaml.ScalarNode && m.Tag == "!!null":
		return nil
	case m.Kind != yaml.MappingNode:
		r.problem(n, path, "isn't a mapping of keys to values")
		return nil
	}
	r.merged[m] = nil
	out := []entry{}
	first := map[string]*yaml.Node{}
	var bases []*yaml.Node
	for i := 0; i+1 < len(m.Content); i += 2 {
		e := entry{key: resolve(m.Content[i]), value: m.Content[i+1]}
		switch {
		case e.key.Tag == "!!merge":
			bases = append(bases, e.value)
		case e.key.Kind != yaml.ScalarNode:
			r.problem(m.Content[i], path, "a key must be a name")
		case first[e.key.Value] != nil:
			r.problem(e.key, join(path, e.key.Value), "is given twice, first on line "+strconv.Itoa(first[e.key.Value].Line))
		default:
			first[e.key.Value] = e.key
			out = append(out, e)
		}
	}
	for _, base := range bases {
		list := []*yaml.Node{base}
		if b := resolve(base); b.Kind == yaml.SequenceNode {
			list = b.Content
		}
		for _, b := range list {
			for _, e := range r.entries(path, b) {
				if first[e.key.Value] == nil {
					first[e.key.Value] = e.key
					out = append(out, e)
				}
			}
		}
	}
	r.merged[m] = out
	return out
}

// scalar returns the text of a single value with its variables replaced.
func (r *reader) scalar(path string, n *yaml.Node) (string, bool) {
	s := resolve(n)
	if s.Kind != yaml.ScalarNode {
		r.problem(n, path, "isn't a single value")
		return "", false
	}
	switch s.Tag {
	case "!!null":
		r.problem(n, path, "has no value")
		return "", false
	case "!!str", "!!int", "!!float", "!!bool", "!!timestamp":
	default:
		r.problem(n, path, "the tag "+s.Tag+" has no meaning here")
		return "", false
	}
	text, reasons := expand(s.Value, r.lookup)
	for _, reason := range reasons {
		r.problem(n, path, reason)
	}
	return text, len(reasons) == 0
}

// resolve looks through an alias. The parser lets an alias stand for a node
// with an anchor only, never for another alias.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
