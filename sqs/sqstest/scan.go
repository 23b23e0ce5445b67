package sqstest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// scanner reads the JSON of the requests that come all the time: in one pass, and
// without a copy of what needs none. Its strings are parts of the request. The
// first error stays, and ends everything.
type scanner struct {
	s   string
	i   int
	err *apiError
}

func (d *scanner) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fail(badJSON, "%s at byte %d", fmt.Sprintf(format, args...), d.i)
		d.i = len(d.s)
	}
}

// next skips spaces and returns the next byte without taking it; 0 at the end.
func (d *scanner) next() byte {
	for ; d.i < len(d.s); d.i++ {
		switch c := d.s[d.i]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

func (d *scanner) take(c byte) bool {
	if d.next() != c {
		return false
	}
	d.i++
	return true
}

func (d *scanner) expect(c byte) {
	if !d.take(c) {
		d.fail("%q is missing", c)
	}
}

// null takes a null, which means the same as nothing.
func (d *scanner) null() bool {
	if d.next() == 'n' && strings.HasPrefix(d.s[d.i:], "null") {
		d.i += len("null")
		return true
	}
	return false
}

// object calls field for each member; field reads its value.
func (d *scanner) object(field func(name string)) {
	if d.null() {
		return
	}
	d.expect('{')
	if d.take('}') {
		return
	}
	for d.err == nil {
		name := d.string()
		d.expect(':')
		if d.err == nil {
			field(name)
		}
		if d.take('}') {
			return
		}
		d.expect(',')
	}
}

// array calls element for each; element reads it.
func (d *scanner) array(element func()) {
	if d.null() {
		return
	}
	d.expect('[')
	if d.take(']') {
		return
	}
	for d.err == nil {
		element()
		if d.take(']') {
			return
		}
		d.expect(',')
	}
}

// string reads a string.
func (d *scanner) string() string {
	if d.null() {
		return ""
	}
	d.expect('"')
	from := d.i
	for ; d.i < len(d.s); d.i++ {
		switch c := d.s[d.i]; {
		case c == '"':
			s := d.s[from:d.i]
			d.i++
			if !utf8.ValidString(s) {
				s = strings.ToValidUTF8(s, string(utf8.RuneError))
			}
			return s
		case c == '\\':
			return d.escaped(from)
		case c < ' ':
			d.fail("a control character in a string")
			return ""
		}
	}
	d.fail("a string has no end")
	return ""
}

// escaped reads a string that has something escaped.
func (d *scanner) escaped(from int) string {
	for ; d.i < len(d.s); d.i++ {
		switch d.s[d.i] {
		case '\\':
			d.i++
		case '"':
			d.i++
			var s string
			if err := json.Unmarshal([]byte(d.s[from-1:d.i]), &s); err != nil {
				d.fail("%v", err)
			}
			return s
		}
	}
	d.fail("a string has no end")
	return ""
}

// optional is string that tells whether there's one.
func (d *scanner) optional() *string {
	if d.null() {
		return nil
	}
	s := d.string()
	return &s
}

func (d *scanner) integer() *int {
	if d.null() {
		return nil
	}
	d.next()
	from := d.i
	for d.i < len(d.s) && (d.s[d.i] == '-' || d.s[d.i] >= '0' && d.s[d.i] <= '9') {
		d.i++
	}
	n, err := strconv.Atoi(d.s[from:d.i])
	if err != nil {
		d.fail("an integer was expected")
	}
	return &n
}

func (d *scanner) strings() []string {
	var out []string
	d.array(func() { out = append(out, d.string()) })
	return out
}

// unknown refuses a parameter that nobody reads. AWS would ignore it, and a test
// would never find out.
func (d *scanner) unknown(name string) {
	if d.err == nil {
		d.err = unknownParameter(strconv.Quote(name))
		d.i = len(d.s)
	}
}

func unknownParameter(quoted string) *apiError {
	return fail(invalidParameter, "sqstest: the action has no parameter %s", quoted)
}

// scan reads a whole request.
func scan(body []byte, field func(d *scanner, name string)) *apiError {
	d := &scanner{s: string(body)}
	if d.next() == 0 {
		return nil
	}
	d.object(func(name string) { field(d, name) })
	if d.err == nil && d.next() != 0 {
		d.fail("something follows the request's JSON")
	}
	return d.err
}

// attributeMap reads attributes; an attribute's bytes come in base64.
func (d *scanner) attributeMap() map[string]attributeValue {
	var out map[string]attributeValue
	d.object(func(name string) {
		var v attributeValue
		d.object(func(field string) {
			switch field {
			case "DataType":
				v.DataType = d.string()
			case "StringValue":
				v.StringValue = d.optional()
			case "BinaryValue":
				v.BinaryValue = d.bytes()
			case "StringListValues":
				v.StringListValues = d.strings()
			case "BinaryListValues":
				d.array(func() { v.BinaryListValues = append(v.BinaryListValues, d.bytes()) })
			default:
				d.unknown(field)
			}
		})
		if out == nil {
			out = map[string]attributeValue{}
		}
		if _, twice := out[name]; twice {
			d.fail("the attribute %q stands there twice", name)
		}
		out[name] = v
	})
	return out
}

func (d *scanner) bytes() []byte {
	if d.null() {
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(d.string())
	if err != nil {
		d.fail("%v", err)
	}
	return b
}

// read reads one parameter of a message that's sent.
func (e *sendEntry) read(d *scanner, name string) {
	switch name {
	case "Id":
		e.Id = d.optional()
	case "MessageBody":
		e.MessageBody = d.string()
	case "DelaySeconds":
		e.DelaySeconds = d.integer()
	case "MessageAttributes":
		e.MessageAttributes = d.attributeMap()
	case "MessageSystemAttributes":
		e.MessageSystemAttributes = d.attributeMap()
	case "MessageDeduplicationId":
		e.MessageDeduplicationId = d.optional()
	case "MessageGroupId":
		e.MessageGroupId = d.optional()
	default:
		d.unknown(name)
	}
}

// read reads one parameter of a message that's deleted or changed.
func (e *settleEntry) read(d *scanner, name string, visibility bool) {
	switch {
	case name == "Id":
		e.Id = d.string()
	case name == "ReceiptHandle":
		e.ReceiptHandle = d.string()
	case name == "VisibilityTimeout" && visibility:
		e.VisibilityTimeout = d.integer()
	default:
		d.unknown(name)
	}
}

// read reads one parameter of a receive.
func (in *receiveInput) read(d *scanner, name string) {
	switch name {
	case "QueueUrl":
		in.QueueUrl = d.string()
	case "AttributeNames":
		in.AttributeNames = d.strings()
	case "MessageSystemAttributeNames":
		in.MessageSystemAttributeNames = d.strings()
	case "MessageAttributeNames":
		in.MessageAttributeNames = d.strings()
	case "MaxNumberOfMessages":
		in.MaxNumberOfMessages = d.integer()
	case "VisibilityTimeout":
		in.VisibilityTimeout = d.integer()
	case "WaitTimeSeconds":
		in.WaitTimeSeconds = d.integer()
	case "ReceiveRequestAttemptId":
		in.ReceiveRequestAttemptId = d.optional()
	default:
		d.unknown(name)
	}
}

// batchOf reads a request of several entries to one queue.
func batchOf[E any](c *call, read func(e *E, d *scanner, name string), id func(*E) *string) (*core, []E, *apiError) {
	var url string
	var entries []E
	if err := scan(c.body, func(d *scanner, name string) {
		switch name {
		case "QueueUrl":
			url = d.string()
		case "Entries":
			d.array(func() {
				var none E
				entries = append(entries, none)
				e := &entries[len(entries)-1]
				d.object(func(name string) { read(e, d, name) })
			})
		default:
			d.unknown(name)
		}
	}); err != nil {
		return nil, nil, err
	}
	q, err := c.queueAt(url)
	if err != nil {
		return nil, nil, err
	}
	return q, entries, checkBatch(entries, id)
}
