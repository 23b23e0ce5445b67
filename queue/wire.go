package queue

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

// Names of the attributes that the library writes.
const (
	// MetaAttribute holds the library's metadata as JSON. Where a value is
	// limited it goes on in "queue-meta-2", "queue-meta-3" and so on.
	MetaAttribute = "queue-meta"
	// EncodingAttribute says how a body that the broker can't carry is encoded:
	// EncodingBase64, or EncodingEmpty for a message that has nothing to carry.
	EncodingAttribute = "queue-encoding"

	EncodingBase64 = "base64"
	EncodingEmpty  = "empty"

	// ReservedPrefix begins the attribute names that belong to the library.
	ReservedPrefix = "queue-"
)

// Wire describes how a messaging system carries a message: its limits, and what
// can't go as it is. It's a table, to be treated as a constant. The zero value
// has no limits.
type Wire struct {
	System string

	MaxBytes      int // of body and attributes together, as the system counts; 0: no limit
	MaxAttributes int // 0: no limit
	MaxNameBytes  int // of an attribute's name; 0: no limit
	MaxValueBytes int // of an attribute's value; 0: no limit
	MaxKeyBytes   int // of OrderingKey and DedupID; 0: no limit

	// AttributeBytes is the least that an attribute costs beyond its name and
	// value. With TypedAttributes it's the length of the type of plain strings.
	AttributeBytes int
	// ReserveBytes of MaxBytes are kept free for what a request holds beside
	// the message: its framing, the key, the topic's name. Copies that the
	// library makes of what the system once carried may use them.
	ReserveBytes int

	// XMLText says that body and values hold only the characters of XML 1.0 and
	// at least one of them. Other bodies travel as base64, other values in the
	// metadata.
	XMLText bool
	// TypedAttributes says that each attribute has a data type, which counts to
	// the size; values of type Binary may hold any bytes. Elsewhere the types
	// that a foreign producer gave travel in the metadata.
	TypedAttributes bool
	// NeedsContent says that a message must have a body or an attribute.
	NeedsContent bool
	// StrictNames says that attribute names are letters, digits, "_", "-" and
	// ".", with no dot at either end or beside another.
	StrictNames bool
	// ASCIIKeys says that OrderingKey and DedupID are letters, digits and ASCII
	// punctuation.
	ASCIIKeys bool
	// ReservedNames are prefixes of attribute names that the system keeps for
	// itself, in lower case; matched without regard to case.
	ReservedNames []string
}

// The limits of both services, with what counts to them, are listed in
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html and
// https://cloud.google.com/pubsub/quotas.

// SQSWire is what Amazon SQS carries: 1 MiB in all, ten attributes, text only.
// The metadata is one of the ten.
func SQSWire() Wire {
	return Wire{
		System: "aws_sqs", MaxBytes: 1 << 20, MaxAttributes: 10, MaxNameBytes: 256, MaxKeyBytes: 128,
		AttributeBytes: len("String"), TypedAttributes: true, XMLText: true, StrictNames: true, ASCIIKeys: true,
		ReservedNames: []string{"aws.", "amazon."},
	}
}

// PubSubWire is what Google Cloud Pub/Sub carries: 10 MB in all, 100 attributes
// of 1,024 bytes.
func PubSubWire() Wire {
	return Wire{
		System: "gcp_pubsub", MaxBytes: 10_000_000, ReserveBytes: 4096, MaxAttributes: 100, MaxNameBytes: 256,
		MaxValueBytes: 1024, MaxKeyBytes: 1024, AttributeBytes: 6, NeedsContent: true, ReservedNames: []string{"goog"},
	}
}

// PortableWire is what every supported system carries.
func PortableWire() Wire {
	w := SQSWire()
	w.System = "memory"
	w.MaxValueBytes = 1024
	w.TypedAttributes = false
	w.ReservedNames = []string{"aws.", "amazon.", "goog"}
	return w
}

// check fails when a message can't be carried, so that what it accepts can be
// encoded. It costs no allocation for a message without metadata, or with an ID
// or a due time, that is far from every limit. plain is Prepared.Plain.
func (w *Wire) check(m *Message, each func(name, value string)) (plain bool, err error) {
	if err := w.checkKey("ordering key", m.OrderingKey); err != nil {
		return false, err
	}
	if err := w.checkKey("dedup id", m.DedupID); err != nil {
		return false, err
	}
	if !utf8.ValidString(m.ID) {
		return false, &InvalidError{"ID", "not valid UTF-8"}
	}
	var types map[string]string
	if md := m.meta; md != nil {
		if md.library {
			// What a broker once carried isn't judged by its names and values:
			// what this one can't carry travels in the metadata.
			_, err := w.Encode(m)
			return false, err
		}
		types = md.types
	}
	size, count, exact := len(m.Body), len(m.Attributes), len(types) > 0
	if w.XMLText {
		// A body that XML can't hold is larger on the wire and takes an attribute.
		// Its text is only looked at when that might be too much.
		encoded := base64Len(len(m.Body)) + 1 + len(EncodingAttribute) + len(EncodingBase64) + w.AttributeBytes // the 1 is for an empty one
		far := (w.MaxBytes == 0 || encoded < w.MaxBytes/2) && (w.MaxAttributes == 0 || count < w.MaxAttributes/2)
		if far || !xmlBody(m.Body) {
			size, count = encoded, count+1
		}
	}
	for k, v := range m.Attributes {
		if each != nil {
			each(k, v)
		}
		// Most are as simple as they can be: nothing else need be looked at.
		plain := plainASCII(v)
		if !plain || !w.plainName(k) || w.MaxValueBytes > 0 && len(v) > w.MaxValueBytes {
			if err := w.checkAttribute(k, v, types[k]); err != nil {
				return false, err
			}
		}
		if w.XMLText && !plain && !xmlText(v) {
			exact = true // it travels in the metadata
		}
		size += len(k) + len(v) + w.AttributeBytes
	}
	n, known := metaBound(m)
	if !known {
		exact = true
	} else if n > 0 {
		// Splitting between runes may waste three bytes of each value.
		values := 1
		if w.MaxValueBytes > 0 && n > w.MaxValueBytes {
			values += n / max(w.MaxValueBytes-utf8.UTFMax+1, 1)
		}
		count += values
		size += n + values*(len(MetaAttribute)+len("-100")+w.AttributeBytes)
	}
	if !exact && (w.MaxAttributes == 0 || count <= w.MaxAttributes) && (w.MaxBytes == 0 || size <= w.MaxBytes-w.ReserveBytes) {
		// Where text is asked for the body hasn't been looked at, maybe.
		return n == 0 && m.meta == nil && !w.XMLText && (!w.NeedsContent || len(m.Body)+len(m.Attributes) > 0), nil
	}
	_, err = w.Encode(m)
	return false, err
}

// checkAttribute judges what a user publishes.
func (w *Wire) checkAttribute(k, v, kind string) error {
	if err := w.checkName(k); err != nil {
		return err
	}
	if !utf8.ValidString(v) && !isBinary(kind) {
		return &InvalidError{"attribute " + quote(k), "the value isn't valid UTF-8"}
	}
	if w.MaxValueBytes > 0 && len(v) > w.MaxValueBytes {
		return &LimitError{Field: "attribute " + quote(k), Got: int64(len(v)), Max: int64(w.MaxValueBytes), System: w.System}
	}
	return nil
}

// plainName reports whether a name is good for every system.
func (w *Wire) plainName(k string) bool {
	return k != "" && (w.MaxNameBytes == 0 || len(k) <= w.MaxNameBytes) && strictName(k) &&
		!strings.HasPrefix(k, ReservedPrefix) && w.reserved(k) == ""
}

func (w *Wire) checkName(k string) error {
	field := func() string { return "attribute " + quote(k) }
	switch {
	case k == "":
		return &InvalidError{field(), "the name is empty"}
	case strings.HasPrefix(k, ReservedPrefix):
		return &InvalidError{field(), "names beginning with " + ReservedPrefix + " are reserved for this library"}
	case w.MaxNameBytes > 0 && len(k) > w.MaxNameBytes:
		return &LimitError{Field: "name of " + field(), Got: int64(len(k)), Max: int64(w.MaxNameBytes), System: w.System}
	case !utf8.ValidString(k):
		return &InvalidError{field(), "the name isn't valid UTF-8"}
	case w.StrictNames && !strictName(k):
		return &InvalidError{field(), "the name may have letters, digits, _, - and single inner dots only, on " + w.System}
	}
	if p := w.reserved(k); p != "" {
		return &InvalidError{field(), "names beginning with " + p + " are reserved on " + w.System}
	}
	return nil
}

// carries reports whether an attribute can go as it is, in a message that may
// also have attributes of the library.
func (w *Wire) carries(k, v, kind string) bool {
	switch {
	case k == "" || ownName(k) || w.MaxNameBytes > 0 && len(k) > w.MaxNameBytes || !utf8.ValidString(k):
		return false
	case w.StrictNames && !strictName(k) || w.reserved(k) != "":
		return false
	}
	return w.carriesValue(v, kind)
}

func (w *Wire) carriesValue(v, kind string) bool {
	switch {
	case w.MaxValueBytes > 0 && len(v) > w.MaxValueBytes:
		return false
	case w.TypedAttributes && isBinary(kind):
		return v != ""
	case w.XMLText:
		return xmlText(v)
	}
	return utf8.ValidString(v)
}

// reserved returns the system's own prefix that k begins with, if any.
func (w *Wire) reserved(k string) string {
	for _, p := range w.ReservedNames {
		if len(k) < len(p) || len(p) > 0 && k[0] < utf8.RuneSelf && k[0]|0x20 != p[0]|0x20 {
			continue // the usual case, at little cost
		}
		if strings.EqualFold(k[:len(p)], p) {
			if strings.HasPrefix(k, "googclient_") {
				continue // what Google's own clients add, and so may be forwarded
			}
			return p
		}
	}
	return ""
}

// ownName reports whether Decode gives a meaning to an attribute of that name.
func ownName(k string) bool {
	return k == EncodingAttribute || k == MetaAttribute || strings.HasPrefix(k, MetaAttribute+"-")
}

func (w *Wire) checkKey(field, k string) error {
	if k == "" {
		return nil
	}
	if w.MaxKeyBytes > 0 && len(k) > w.MaxKeyBytes {
		return &LimitError{Field: field, Got: int64(len(k)), Max: int64(w.MaxKeyBytes), System: w.System}
	}
	if w.ASCIIKeys {
		for i := range len(k) {
			if k[i] <= ' ' || k[i] > '~' {
				return &InvalidError{field, "letters, digits and ASCII punctuation only, on " + w.System}
			}
		}
	} else if !utf8.ValidString(k) {
		return &InvalidError{field, "not valid UTF-8"}
	}
	return nil
}

func strictName(k string) bool {
	for i := range len(k) {
		switch c := k[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-':
		case c == '.':
			if i == 0 || i == len(k)-1 || k[i-1] == '.' {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// xmlText reports whether s is not empty and holds only characters that XML 1.0
// allows, which is what SQS takes.
func xmlText[T string | []byte](s T) bool {
	return len(s) > 0 && xmlRunes(s, 0, len(s)) >= 0
}

// Bytes are looked at by eights.
const (
	high   = 0x8080808080808080
	spaces = 0x2020202020202020
)

// plainASCII reports whether s is not empty and all its bytes are from 0x20 to
// 0x7F: text that every system carries as it is.
func plainASCII(s string) bool {
	if len(s) < 8 {
		for i := range len(s) {
			if s[i] < ' ' || s[i] >= utf8.RuneSelf {
				return false
			}
		}
		return s != ""
	}
	for i := 0; ; i += 8 {
		i = min(i, len(s)-8) // the last eight may overlap
		x := uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24 |
			uint64(s[i+4])<<32 | uint64(s[i+5])<<40 | uint64(s[i+6])<<48 | uint64(s[i+7])<<56
		if (x|(x-spaces)&^x)&high != 0 {
			return false
		}
		if i == len(s)-8 {
			return true
		}
	}
}

// xmlBody is xmlText for bodies, which are long and mostly plain ASCII.
func xmlBody(b []byte) bool {
	i := 0
	for i+8 <= len(b) {
		x := binary.LittleEndian.Uint64(b[i:])
		if (x|(x-spaces)&^x)&high == 0 { // all from 0x20 to 0x7F
			i += 8
		} else if i = xmlRunes(b, i, i+8); i < 0 {
			return false
		}
	}
	return len(b) > 0 && xmlRunes(b, i, len(b)) >= 0
}

// xmlRunes looks at the runes that begin in s[i:end], and returns where the next
// one begins, or a negative number when XML doesn't allow one.
func xmlRunes[T string | []byte](s T, i, end int) int {
	for i < end {
		c := s[i]
		if c < utf8.RuneSelf {
			if c < ' ' && c != '\t' && c != '\n' && c != '\r' {
				return -1
			}
			i++
			continue
		}
		r, n := decodeRune(s, i)
		if r == utf8.RuneError && n == 1 || r == 0xFFFE || r == 0xFFFF {
			return -1
		}
		i += n
	}
	return i
}

func decodeRune[T string | []byte](s T, i int) (rune, int) {
	var b [utf8.UTFMax]byte
	n := copy(b[:], s[i:min(len(s), i+utf8.UTFMax)])
	return utf8.DecodeRune(b[:n])
}

func quote(s string) string {
	if len(s) > 40 {
		s = s[:40] + "..."
	}
	return `"` + strings.ToValidUTF8(s, "?") + `"`
}
