package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// schemaID is where the schema can be had.
const schemaID = "https://raw.githubusercontent.com/anyqueue/anyqueue/main/queue/config/schema.json"

// Schema returns a JSON Schema (draft 2020-12) of the file, for editors and checks
// that run without this library. It accepts every file that Parse accepts, and
// refuses unknown keys, values of the wrong kind and numbers out of their range;
// what contradicts something else, only Parse finds. It's the file schema.json
// beside this package's source. Each call returns bytes of its own.
func Schema() []byte {
	r := &reader{file: &File{}}
	s := objectSchema(r.topFields(&top{}))
	s.Schema, s.ID, s.Type = "https://json-schema.org/draft/2020-12/schema", schemaID, types("object")
	s.Title, s.Required = "Queues of an application (anyqueue)", []string{"queues"}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(s); err != nil {
		panic("config: a schema that isn't JSON: " + err.Error()) // it's made of strings and numbers
	}
	return out.Bytes()
}

// schema is the part of JSON Schema that the file needs.
type schema struct {
	Schema      string `json:"$schema,omitempty"`
	ID          string `json:"$id,omitempty"`
	Title       string `json:"title,omitempty"`
	Description string `json:"description,omitempty"`

	Ref       string    `json:"$ref,omitempty"`
	Type      any       `json:"type,omitempty"` // a name, or a list of them
	Enum      []any     `json:"enum,omitempty"`
	Pattern   string    `json:"pattern,omitempty"` // of a text; numbers have none
	MinLength int       `json:"minLength,omitempty"`
	Minimum   *float64  `json:"minimum,omitempty"`
	Maximum   *float64  `json:"maximum,omitempty"`
	AnyOf     []*schema `json:"anyOf,omitempty"`
	Not       *schema   `json:"not,omitempty"`

	Properties           properties `json:"properties,omitempty"`
	PropertyNames        *schema    `json:"propertyNames,omitempty"`
	AdditionalProperties any        `json:"additionalProperties,omitempty"` // false or a schema
	MinProperties        int        `json:"minProperties,omitempty"`
	Required             []string   `json:"required,omitempty"`

	Default  any   `json:"default,omitempty"`
	Examples []any `json:"examples,omitempty"`
}

// properties are the schemas of known keys, in the order in which they're
// documented.
type properties []property

type property struct {
	name   string
	schema *schema
}

// MarshalJSON writes an object in that order.
func (ps properties) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	out.WriteByte('{')
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	for i, p := range ps {
		if i > 0 {
			out.WriteByte(',')
		}
		fmt.Fprintf(&out, "%q:", p.name)
		if err := enc.Encode(p.schema); err != nil {
			return nil, err
		}
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

func types(names ...string) any {
	if len(names) == 1 {
		return names[0]
	}
	return names
}

// variablePattern finds a variable in a text.
const variablePattern = `\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^$}]*)?\}`

// orVariable is a pattern for what may also come from the environment.
func orVariable(pattern string) string { return "^(" + pattern + ")$|" + variablePattern }

// textSchema is for what's taken as it stands: YAML may see a number in it.
func textSchema(least int) *schema {
	return &schema{Type: types("string", "number", "boolean"), MinLength: least, Pattern: `^([^$]|\$\$|` + variablePattern + `)*$`}
}

func integerSchema(least, most int) *schema {
	s := &schema{Type: types("integer", "string"), Pattern: orVariable(intPattern), Minimum: new(float64)}
	*s.Minimum = float64(least)
	if most > 0 {
		m := float64(most)
		s.Maximum = &m
	}
	return s
}

// objectSchema is for a mapping whose keys are known. Nothing is an empty one.
func objectSchema(fields []field) *schema {
	s := &schema{Type: types("object", "null"), AdditionalProperties: false}
	for _, f := range fields {
		if f.schema == nil {
			continue
		}
		p := f.schema()
		p.Description = strings.ToUpper(f.doc[:1]) + f.doc[1:]
		if f.preset != nil {
			p.Default = f.preset
			p.Description += fmt.Sprint("; default ", f.preset)
		}
		p.Description += "."
		s.Properties = append(s.Properties, property{f.name, p})
	}
	return s
}

// defaultsSchema is for what queues inherit. What the keys mean stands with the queues.
func defaultsSchema(fields []field) *schema {
	s := objectSchema(fields)
	for i, p := range s.Properties {
		s.Properties[i].schema = &schema{Ref: "#/properties/queues/additionalProperties/properties/" + p.name}
	}
	return s
}

// limitsSchema is for mappings by name that limit something.
func limitsSchema(fields []field) *schema {
	one := objectSchema(fields)
	one.Type, one.MinProperties = types("object"), 1
	return &schema{Type: types("object", "null"), AdditionalProperties: one, PropertyNames: &schema{MinLength: 1, Not: &schema{Enum: []any{off}}}}
}

// queuesSchema is for queues by name, of which there's at least one.
func queuesSchema(fields []field) *schema {
	return &schema{
		Type: types("object"), MinProperties: 1, AdditionalProperties: objectSchema(fields),
		// As queue.CheckName has it.
		PropertyNames: &schema{Pattern: `^[A-Za-z][A-Za-z0-9_-]{2,74}$`, Not: &schema{Pattern: `^[Gg][Oo][Oo][Gg]`}},
	}
}

// orOff is for a mapping that the word off can stand in for.
func orOff(s *schema) *schema {
	return &schema{AnyOf: []*schema{{Enum: []any{off}}, s}}
}
