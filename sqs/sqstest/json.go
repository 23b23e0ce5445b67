package sqstest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// decode reads the parameters of a request that's rare. One that the action
// doesn't know is an error: see scanner.unknown.
func decode(body []byte, into any) *apiError {
	if len(bytes.TrimSpace(body)) == 0 {
		body = []byte("{}")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			return unknownParameter(name)
		}
		return fail(badJSON, "%v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fail(badJSON, "something follows the request's JSON")
	}
	return nil
}

// writer builds an answer's JSON: messages are most of the work, and
// encoding/json takes several times as long.
type writer struct {
	b     []byte
	comma bool
}

func (w *writer) name(name string) {
	if w.comma {
		w.b = append(w.b, ',')
	}
	w.comma = true
	if name != "" {
		w.b = append(w.b, '"')
		w.b = append(w.b, name...)
		w.b = append(w.b, '"', ':')
	}
}

// object and array write a member; an empty name is for the elements of an
// array, and for the answer itself.
func (w *writer) object(name string, f func()) { w.nest(name, '{', '}', f) }
func (w *writer) array(name string, f func())  { w.nest(name, '[', ']', f) }

func (w *writer) nest(name string, first, last byte, f func()) {
	w.name(name)
	w.b = append(w.b, first)
	w.comma = false
	f()
	w.b = append(w.b, last)
	w.comma = true
}

func (w *writer) string(name, s string) {
	w.name(name)
	w.b = appendString(w.b, s)
}

// key is string for a name that may have to be escaped.
func (w *writer) key(name, s string) {
	if w.comma {
		w.b = append(w.b, ',')
	}
	w.comma = true
	w.b = appendString(w.b, name)
	w.b = append(w.b, ':')
	w.b = appendString(w.b, s)
}

// optional writes what isn't empty.
func (w *writer) optional(name, s string) {
	if s != "" {
		w.string(name, s)
	}
}

func (w *writer) bool(name string, v bool) {
	w.name(name)
	w.b = strconv.AppendBool(w.b, v)
}

func (w *writer) int(name string, n int64) {
	w.name(name)
	w.b = strconv.AppendInt(w.b, n, 10)
}

func (w *writer) binary(name string, v []byte) {
	w.name(name)
	w.b = append(w.b, '"')
	w.b = base64.StdEncoding.AppendEncode(w.b, v)
	w.b = append(w.b, '"')
}

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string. It's valid UTF-8, as it was read from
// JSON.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			continue
		}
		if c >= utf8.RuneSelf {
			continue
		}
		b = append(b, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	b = append(b, s[from:]...)
	return append(b, '"')
}
