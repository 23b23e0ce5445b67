package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/queue/config"
)

const schemaFile = "schema.json"

func TestSchemaFileIsTheSchema(t *testing.T) {
	t.Parallel()
	if *update {
		require.NoError(t, os.WriteFile(schemaFile, config.Schema(), 0o600))
	}
	want, err := os.ReadFile(schemaFile)
	require.NoError(t, err)
	assert.Equal(t, string(want), string(config.Schema()), "run go test ./queue/config -update")
	first := config.Schema()
	first[0] = 'x'
	assert.True(t, json.Valid(config.Schema()), "each caller has its own")
}

// compiled also checks the schema against the schema of schemas.
var compiled = sync.OnceValues(func() (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(config.Schema()))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(schemaFile, doc); err != nil {
		return nil, err
	}
	return c.Compile(schemaFile)
})

// bySchema is what an editor says of a file. The first result is false when it's not
// even YAML.
func bySchema(data []byte) (isYAML bool, said error) {
	var v any
	if err := yaml.Unmarshal(data, &v); err != nil {
		return false, err
	}
	s, err := compiled()
	if err != nil {
		return true, err
	}
	return true, s.Validate(asJSON(v))
}

// asJSON is v as an editor sees it, to whom all that isn't of JSON is text.
func asJSON(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = asJSON(v[k])
		}
	case map[any]any:
		m := map[string]any{}
		for k := range v {
			m[fmt.Sprint(k)] = asJSON(v[k])
		}
		return m
	case []any:
		for i := range v {
			v[i] = asJSON(v[i])
		}
	case time.Time:
		return v.String()
	case float64:
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return fmt.Sprint(v)
		}
	}
	return v
}

func TestSchemaAcceptsTheFilesOfThisModule(t *testing.T) {
	t.Parallel()
	files := []string{}
	for _, pattern := range []string{"testdata/*.yaml", "../../examples/*/queues.yaml", "../../examples/*/*/queues.yaml"} {
		found, err := filepath.Glob(pattern)
		require.NoError(t, err)
		files = append(files, found...)
	}
	require.GreaterOrEqual(t, len(files), 5)
	for _, path := range files {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			_, err = config.Parse(path, data, nil)
			require.NoError(t, err)
			_, err = bySchema(data)
			assert.NoError(t, err)
		})
	}
}

// onlyParsed are wrong in ways that a schema can't tell.
var onlyParsed = []string{
	"contradictions", "dead-letter-queues", "given-twice", "limits-of-services", "retention", "retention-of-all", "two-documents",
	"two-documents-the-second-broken",
}

func TestSchemaRefusesWhatItCan(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/wrong/*.yaml")
	require.NoError(t, err)
	refused := 0
	for _, path := range files {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		name := strings.TrimSuffix(filepath.Base(path), ".yaml")
		isYAML, said := bySchema(data)
		switch {
		case !isYAML:
		case slices.Contains(onlyParsed, name):
			assert.NoError(t, said, "%s: take it out of onlyParsed", name)
		default:
			refused++
			assert.ErrorAs(t, said, new(*jsonschema.ValidationError), name)
		}
	}
	assert.GreaterOrEqual(t, refused, 12)
}

// Each value is tried alone, as a file that's wrong all over is refused for anything.
func TestSchemaAndParserAgreeOnValues(t *testing.T) {
	t.Parallel()
	durations := []string{"500ms", "30s", "1h30m", "2d", "1d12h", "1.5h", ".5s", "5.s", "3µs", "3μs", "7ns", "9us", "01s", `"30s"`, "'2d'"}
	notDurations := []string{"5", "soon", "-1s", "+5s", "5 m", "1d2", "1d0", "1h-30m", "s", "d", "", "[1s]", "{s: 1}", "true", "1e3s", "30S", "1w", `" 5s"`}
	zeros := []string{"0", "0s", "off", "0d"}
	optional, notOptional := append(zeros, durations...), append([]string{`"00"`, "-0s", "Off", "none"}, notDurations...)
	rates := []string{"50/s", "100/m", "1000/h", "5/d", "0.5/s", ".5/s", "1e3/m", "50 / s", `" 50/s "`, "off"}
	notRates := []string{"50", "fast", "-5/s", "0x10/s", "5/fortnight", "50/S", "/s", "inf/s", "nan/s", "5//s", "[5/s]", ""}
	texts, notTexts := []string{"x", "5", "1.5", "true", "a b", "a$$b", "2026-01-01", "0x10"}, []string{"[x]", "{x: y}", `"a$b"`, `"${"`, `"${1}"`}
	named := func(keys ...string) (out []string) {
		for _, k := range keys {
			out = append(out, "queues: {orders: {"+k+": VALUE}}", "defaults: {"+k+": VALUE}\nqueues: {orders: {}}")
		}
		return out
	}
	for name, tt := range map[string]struct {
		files     []string
		good, bad []string
	}{
		"durations":     {named("lease", "max_extension"), durations[:5], append(notDurations, "off")},
		"odd durations": {[]string{"queues: {orders: {max_extension: VALUE}}"}, durations, notDurations},
		"retries":       {[]string{"queues: {orders: {retry: {max: VALUE}}}"}, durations[1:5], notDurations},
		"durations or none": {
			append(named("delay", "drain_timeout", "receive_grace"), "queues: {orders: {dead_letter: {queue: dead, max_age: VALUE}}, dead: {}}"), optional, notOptional,
		},
		"retention": {named("retention"), append([]string{"off"}, durations...), notDurations},
		"rates":     {append(named("rate"), "limits: {crm: {rate: VALUE}}\nqueues: {orders: {limit: crm}}"), rates, notRates},
		"whole numbers": {
			append(named("concurrency", "max_hold"), "limits: {crm: {concurrency: VALUE}}\nqueues: {orders: {limit: crm}}"),
			[]string{"1", "20", `"20"`, "+5", "1000000"}, []string{"0", "-1", "1.5", "many", "", "off", "[5]", "true", `"5 "`, "1h"},
		},
		"much":     {named("concurrency"), nil, []string{"1000001"}},
		"tries":    {[]string{"queues: {orders: {retry: {in_place: VALUE}}}"}, []string{"0", "3"}, []string{"-1", "x", "off"}},
		"failures": {[]string{"queues: {orders: {dead_letter: {queue: dead, max_failures: VALUE}}, dead: {}}"}, []string{"1", "off", `"7"`}, []string{"0", "-1", "none"}},
		"factor":   {[]string{"queues: {orders: {retry: {factor: VALUE}}}"}, []string{"1", "1.5", `"2"`, "1e2", "1000"}, []string{"0.5", "-2", "1001", "inf", ".inf", ".nan", "0x2x", "two", ""}},
		"jitter":   {[]string{"queues: {orders: {retry: {jitter: VALUE}}}"}, []string{"0", "1", ".5", "0.25"}, []string{"-0.1", "1.1", "50%", "off"}},
		"booleans": {append(named("ordered"), "ensure: VALUE\nqueues: {orders: {}}"), []string{"true", "FALSE", "tRuE", `"false"`}, []string{"yes", "1", "off", "", "[true]"}},
		"texts":    {[]string{"queues: {orders: {backend: VALUE}}", "queues: {orders: {tags: {team: VALUE}}}"}, texts, append([]string{""}, notTexts...)},
		"maybe":    {[]string{"queues: {orders: {address: VALUE}}", "queues: {orders: {tags: {team: VALUE}}}"}, append([]string{`""`}, texts...), notTexts},
		"what becomes of ordered messages": {
			[]string{"queues: {orders: {ordered: true, dead_letter: {queue: dead, on_exhausted: VALUE}}, dead: {ordered: true}}"}, []string{"skip", "block"}, []string{"off", "Skip", "drop", "", "1"},
		},
		"dead letters": {named("dead_letter"), []string{"off", `"off"`}, []string{"dead", "[dead]", "true", "5", "{queu: dead}"}},
		"tags":         {named("tags"), []string{"off", "", "{}", "{team: crm, n: 5}"}, []string{"crm", "[crm]", "true", "{team: [crm]}", "{team: }", `{" ": x}`}},
		"sections":     {named("retry"), []string{"{}", "", "{min: 1s}"}, []string{"off", "5m", "[]", "{maximum: 5m}"}},
		"queues":       {[]string{"queues: VALUE", "queues: VALUE\nensure: true"}, []string{"{orders: {}}", "{orders: }"}, []string{"", "{}", "[orders]", "orders", "{or: {}}", "{googly: {}}", "{1st: {}}", "{orders: []}"}},
		"limits":       {[]string{"limits: VALUE\nqueues: {orders: {}}"}, []string{"", "{}", "{crm: {rate: off}}"}, []string{"{crm: }", "{crm: {}}", `{"": {rate: 1/s}}`, "{off: {rate: 1/s}}", "{crm: {burst: 5}}", "[]"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			try := func(value string, good bool) {
				for _, file := range tt.files {
					data := []byte("backend: memory\n" + strings.ReplaceAll(file, "VALUE", value))
					_, parsed := config.Parse("f", data, nil)
					isYAML, said := bySchema(data)
					require.True(t, isYAML, "%s", data)
					assert.Equal(t, good, parsed == nil, "%s: Parse: %v", data, parsed)
					assert.Equal(t, good, said == nil, "%s: schema: %v", data, said)
				}
			}
			for _, value := range tt.good {
				try(value, true)
			}
			for _, value := range tt.bad {
				try(value, false)
			}
		})
	}
}

func TestSchemaTakesAVariableInEverySingleValue(t *testing.T) {
	t.Parallel()
	const text = `
backend: ${V:-memory}
ensure: ${V:-true}
limits: {crm: {concurrency: "${V:-1}", rate: "${N:-5}/s"}}
queues:
  orders:
    backend: ${V:-memory}
    address: ${V:-}
    ordered: ${V:-true}
    concurrency: ${V:-5}
    max_hold: ${V:-5}
    delay: ${V:-off}
    lease: ${V:-5s}
    retention: ${V:-5}d
    tags: {team: "${V:-crm}"}
    limit: ${V:-crm}
    rate: ${V:-5/s}
    timeout: ${V:-5s}
    drain_timeout: ${V:-5s}
    receive_grace: ${V:-5s}
    max_extension: ${V:-5s}
    retry: {min: "${V:-5s}", max: "${V:-5s}", factor: "${V:-2}", jitter: "${V:-0}", in_place: "${V:-0}"}
    dead_letter: {queue: "${V:-dead}", max_age: "${V:-1h}", max_failures: "${V:-5}", on_exhausted: "${V:-block}"}
  dead: {ordered: true}
`
	_, err := config.Parse("f", []byte(text), nil)
	require.NoError(t, err)
	_, said := bySchema([]byte(text))
	require.NoError(t, said)

	var s schemaNode
	require.NoError(t, json.Unmarshal(config.Schema(), &s))
	for _, key := range s.singles("") {
		last := key[strings.LastIndex(key, ".")+1:]
		assert.Regexp(t, `\b`+last+`: [^{]`, text, "%s isn't tried", key)
	}
}

// schemaNode is what the tests look at of the schema.
type schemaNode struct {
	Description          string
	Type                 any
	Default              any
	AnyOf                []schemaNode
	Properties           map[string]schemaNode
	AdditionalProperties json.RawMessage
}

// under returns the schemas of the keys below, by their path.
func (s schemaNode) under(path string) map[string]schemaNode {
	out := map[string]schemaNode{}
	for k, p := range s.Properties {
		out[path+k] = p
		for k, p := range p.under(path + k + ".") {
			out[k] = p
		}
	}
	for _, one := range s.AnyOf {
		for k, p := range one.under(path) {
			out[k] = p
		}
	}
	var more schemaNode
	if json.Unmarshal(s.AdditionalProperties, &more) == nil {
		for k, p := range more.under(path) {
			out[k] = p
		}
	}
	return out
}

func (s schemaNode) singles(path string) (keys []string) {
	for k, p := range s.under(path) {
		if len(p.under("")) == 0 && p.Description != "" && !strings.HasSuffix(k, "tags") {
			keys = append(keys, k)
		}
	}
	return keys
}

// The documentation of the package has every key with its default, as the schema does.
func TestEveryKeyIsDescribed(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	var s schemaNode
	require.NoError(t, json.Unmarshal(config.Schema(), &s))
	keys := s.under("")
	require.Greater(t, len(keys), 30)
	for key, p := range keys {
		if strings.HasPrefix(key, "defaults.") {
			continue // they refer to the queues'
		}
		name := key[strings.LastIndex(key, ".")+1:]
		assert.True(t, regexp.MustCompile(`(?m)^//\t *`+name+`( |$)`).Match(doc), "doc.go lacks %s", key)
		assert.Regexp(t, regexp.MustCompile(`^[A-Z].*[^.]\.$`), p.Description, key)
		assert.NotContains(t, p.Description, ". ", "%s: one sentence", key)
		if p.Default != nil {
			assert.Contains(t, p.Description, fmt.Sprintf("; default %v.", p.Default), key)
		}
	}
}

// What queue.CheckName takes, the schema does, and nothing else.
func TestSchemaKnowsTheNamesOfQueues(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"abc", "ab", "a-b_C9", "9ab", "-ab", "goo", "goog", "GooGle", "agoog", "a b", "a.b", "äbc", strings.Repeat("x", 75), strings.Repeat("x", 76)} {
		isYAML, said := bySchema([]byte("backend: memory\nqueues: {\"" + name + "\": {}}"))
		require.True(t, isYAML)
		assert.Equal(t, queue.CheckName(name) == nil, said == nil, "%s: %v", name, said)
	}
}

// What Parse accepts, the schema must accept.
func FuzzSchema(f *testing.F) {
	addFiles(f)
	env := environment{"A": "memory", "B": "${A}"}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := config.Parse("f", data, env.lookup); err != nil {
			return
		}
		isYAML, said := bySchema(data)
		if _, refused := errors.AsType[*jsonschema.ValidationError](said); isYAML && refused {
			t.Errorf("%s: %v", data, said)
		}
	})
}
