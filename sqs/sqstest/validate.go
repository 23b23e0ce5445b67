package sqstest

import (
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	maxBatch      = 1 << 20 // bytes of the messages of a batch
	maxEntries    = 10
	maxAttributes = 10
	maxName       = 256 // characters of an attribute's name, and of its type
	maxEntryID    = 80
	maxKey        = 128 // characters of a group and of a deduplication id
	traceHeader   = "AWSTraceHeader"
)

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }

// checkBatch checks what all batches have in common.
func checkBatch[E any](entries []E, id func(*E) *string) *apiError {
	switch {
	case len(entries) == 0:
		return fail(emptyBatch, "There should be at least one entry in the request.")
	case len(entries) > maxEntries:
		return fail(tooManyEntries, "Maximum number of entries per request are %d. You have sent %d.", maxEntries, len(entries))
	}
	for i := range entries {
		p := id(&entries[i])
		if p == nil || !isEntryID(*p) {
			return fail(invalidEntryID, "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 letters long.")
		}
		for j := range i {
			if *id(&entries[j]) == *p {
				return fail(idsNotDistinct, "Id %s repeated.", *p)
			}
		}
	}
	return nil
}

func isEntryID(s string) bool {
	if s == "" || len(s) > maxEntryID {
		return false
	}
	for i := range len(s) {
		if !alphanumeric(s[i]) && s[i] != '-' && s[i] != '_' {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// isKey reports whether s is letters, digits and ASCII punctuation, 1 to 128.
func isKey(s string) bool {
	if s == "" || len(s) > maxKey {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// checkFIFO checks the ids of group and deduplication. missing is the error of a
// group that isn't there: a batch has another one than a single message.
func checkFIFO(q *core, set *settings, e *sendEntry, missing string) *apiError {
	check := func(name string, v *string) *apiError {
		if v == nil || isKey(*v) {
			return nil
		}
		return fail(invalidParameter, "Value %s for parameter %s is invalid. Reason: %s can only include alphanumeric and punctuation characters. 1 to 128 in length.", *v, name, name)
	}
	if q.fifo && e.MessageGroupId == nil {
		return fail(missing, "The request must contain the parameter MessageGroupId.")
	}
	if err := check("MessageGroupId", e.MessageGroupId); err != nil {
		return err
	}
	if err := check("MessageDeduplicationId", e.MessageDeduplicationId); err != nil {
		return err
	}
	switch {
	case !q.fifo && e.MessageDeduplicationId != nil:
		return fail(invalidParameter, "Value %s for parameter MessageDeduplicationId is invalid. Reason: The request includes a parameter that is not valid for this queue type.", *e.MessageDeduplicationId)
	case q.fifo && e.MessageDeduplicationId == nil && !set.contentDedup:
		return fail(invalidParameter, "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly")
	}
	return nil
}

func checkBody(body string) *apiError {
	if body == "" {
		return fail(missingParameter, "The request must contain the parameter MessageBody.")
	}
	if !isText(body) {
		return fail(invalidContents, "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF.")
	}
	return nil
}

// isText reports whether s has the characters of XML only.
func isText(s string) bool {
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if c < ' ' && c != '\t' && c != '\n' && c != '\r' {
				return false
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || r == 0xfffe || r == 0xffff {
			return false
		}
		i += n
	}
	return true
}

// sizeOf is what an entry counts: its body, and its attributes' names, types and
// values. System attributes don't count.
func sizeOf(e *sendEntry) int {
	n := len(e.MessageBody)
	for name, v := range e.MessageAttributes {
		n += len(name) + len(v.DataType) + len(v.BinaryValue)
		if v.StringValue != nil {
			n += len(*v.StringValue)
		}
	}
	return n
}

func parseAttribute(name string, v *attributeValue) (attribute, *apiError) {
	a := attribute{name: name, dataType: v.DataType}
	if err := checkName(name); err != nil {
		return a, err
	}
	if len(v.StringListValues) > 0 || len(v.BinaryListValues) > 0 {
		return a, fail(unsupported, "Message attribute list values in SendMessage operation are not supported.")
	}
	kind, label, labeled := strings.Cut(v.DataType, ".")
	switch {
	case v.DataType == "":
		return a, fail(invalidParameter, "The message attribute '%s' must contain a non-empty message attribute type.", name)
	case kind != "String" && kind != "Number" && kind != "Binary" || labeled && label == "" || !isText(v.DataType):
		return a, fail(invalidParameter, "The type of message (user) attribute '%s' is invalid. You must use only the following supported type prefixes: Binary, Number, String.", name)
	case len(v.DataType) > maxName:
		return a, fail(invalidParameter, "Message (user) attribute types must be shorter than 256 Bytes")
	}
	if kind == "Binary" {
		if v.StringValue != nil || len(v.BinaryValue) == 0 {
			return a, emptyValue(name, kind)
		}
		a.binary, a.value = true, string(v.BinaryValue)
		return a, nil
	}
	if v.BinaryValue != nil || v.StringValue == nil || *v.StringValue == "" {
		return a, emptyValue(name, kind)
	}
	a.value = *v.StringValue
	if !isText(a.value) {
		return a, fail(invalidParameter, "The value of message (user) attribute '%s' has invalid characters. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF.", name)
	}
	if kind == "Number" && !isNumber(a.value) {
		return a, fail(invalidParameter, "Can't cast the value of message (user) attribute '%s' to a number.", name)
	}
	return a, nil
}

func emptyValue(name, kind string) *apiError {
	return fail(invalidParameter, "Message (user) attribute '%s' must contain a non-empty value of type '%s'.", name, kind)
}

func checkName(name string) *apiError {
	if name == "" || utf8.RuneCountInString(name) > maxName {
		return fail(invalidParameter, "Message (user) attribute names must be 1 to 256 characters long.")
	}
	for i := range len(name) {
		if c := name[i]; !alphanumeric(c) && c != '_' && c != '-' && c != '.' {
			return fail(invalidParameter, "Message (user) attribute name '%s' is invalid: it can only contain letters, digits, underscores, hyphens and periods.", name)
		}
	}
	lower := strings.ToLower(name)
	if strings.HasPrefix(lower, "aws.") || strings.HasPrefix(lower, "amazon.") ||
		name[0] == '.' || name[len(name)-1] == '.' || strings.Contains(name, "..") {
		return fail(invalidParameter, "You can't use message attribute names beginning with 'AWS.' or 'Amazon.'. These strings are reserved for internal use. Additionally, they cannot start or end with '.', or contain '..'.")
	}
	return nil
}

// isNumber reports whether s is a decimal number that SQS takes: up to 38 digits,
// from -10^128 to 10^126.
func isNumber(s string) bool {
	mantissa := s
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		mantissa = s[:i]
		if n, err := strconv.Atoi(s[i+1:]); err != nil || n < -1000 || n > 1000 {
			return false // far outside, and expensive to compute
		}
	}
	digits := 0
	for i := range len(mantissa) {
		switch c := mantissa[i]; {
		case c >= '0' && c <= '9':
			digits++
		case c == '.', i == 0 && (c == '-' || c == '+'):
		default:
			return false
		}
	}
	significant := strings.TrimRight(strings.TrimLeft(strings.NewReplacer("-", "", "+", "", ".", "").Replace(mantissa), "0"), "0")
	if digits == 0 || len(significant) > 38 {
		return false
	}
	if len(mantissa) == len(s) && len(s) <= 100 {
		return true // no exponent, and too short for the limits
	}
	f, _, err := big.ParseFloat(s, 10, 512, big.ToNearestEven)
	if err != nil {
		return false
	}
	limit := func(exp int) *big.Float {
		x, _, err := big.ParseFloat("1e"+strconv.Itoa(exp), 10, 512, big.ToNearestEven)
		if err != nil {
			return new(big.Float) // can't be
		}
		return x
	}
	return f.Cmp(limit(126)) <= 0 && f.Cmp(limit(128).Neg(limit(128))) >= 0
}

// parseTrace checks the system attributes, of which only one can be sent.
func parseTrace(in map[string]attributeValue) (string, *apiError) {
	trace := ""
	for name, v := range in {
		switch {
		case name != traceHeader:
			return "", fail(invalidParameter, "Message system attribute name '%s' is invalid.", name)
		case v.DataType != "String":
			return "", fail(invalidParameter, "The type of message system attribute '%s' is invalid. You must use only the following supported type prefixes: String.", name)
		case len(v.StringListValues) > 0 || len(v.BinaryListValues) > 0:
			return "", fail(unsupported, "Message attribute list values in SendMessage operation are not supported.")
		case v.BinaryValue != nil || v.StringValue == nil || *v.StringValue == "":
			return "", fail(invalidParameter, "Message system attribute '%s' must contain a non-empty value of type 'String'.", name)
		case !isText(*v.StringValue):
			return "", fail(invalidParameter, "The value of message system attribute '%s' has invalid characters.", name)
		}
		trace = *v.StringValue
	}
	return trace, nil
}
