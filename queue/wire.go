package queue

import (
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
	MaxNameBytes  int // of an attribute's name
	MaxValueBytes int // of an attribute's value
	MaxKeyBytes   int // of OrderingKey and DedupID

	AttributeBytes int // what each attribute costs beyond its name and value

	// XMLText says that body and values hold only the characters of XML 1.0 and
	// at least one of them. Other bodies travel as base64, other values in the
	// metadata.
	XMLText bool
	// NeedsContent says that a message must have a body or an attribute.
	NeedsContent bool
	// StrictNames says that attribute names are letters, digits, "_", "-" and ".", with no
	// dot at either end or beside another.
	StrictNames bool
	// ASCIIKeys says that OrderingKey and DedupID are letters, digits and ASCII
	// punctuation.
	ASCIIKeys bool
	// ReservedNames are prefixes of attribute names that the system keeps for
	// itself, in lower case; matched without regard to case.
	ReservedNames []string
}

// The limits of both services are listed with their sources in
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html and
// https://cloud.google.com/pubsub/quotas. Attributes of SQS cost their name, type and value.

// SQSWire is what Amazon SQS carries: 1 MiB in all, ten attributes, text only.
func SQSWire() Wire {
	return Wire{
		System: "aws_sqs", MaxBytes: 1 << 20, MaxAttributes: 10, MaxNameBytes: 256, MaxKeyBytes: 128,
		AttributeBytes: len("String"), XMLText: true, StrictNames: true, ASCIIKeys: true,
		ReservedNames: []string{"aws.", "amazon."},
	}
}

// PubSubWire is what Google Cloud Pub/Sub carries: 10 MB in all, 100 attributes
// of 1,024 bytes.
func PubSubWire() Wire {
	return Wire{
		System: "gcp_pubsub", MaxBytes: 10_000_000 - 1024, MaxAttributes: 100, MaxNameBytes: 256, MaxValueBytes: 1024,
		MaxKeyBytes: 1024, AttributeBytes: 8, NeedsContent: true, ReservedNames: []string{"goog"},
	}
}

// PortableWire is what every supported system carries.
func PortableWire() Wire {
	w := SQSWire()
	w.System = "memory"
	w.MaxValueBytes = 1024
	w.ReservedNames = []string{"aws.", "amazon.", "goog"}
	return w
}

// check fails when a message can't be carried. library says that the library
// itself publishes again what a broker once carried: names aren't judged then.
// It costs no allocation unless the message is near a limit.
func (w *Wire) check(m *Message, due bool, library bool) error {
	if err := w.checkKey("ordering key", m.OrderingKey); err != nil {
		return err
	}
	if err := w.checkKey("dedup id", m.DedupID); err != nil {
		return err
	}
	if !utf8.ValidString(m.ID) {
		return &InvalidError{"ID", "not valid UTF-8"}
	}
	size, count, fold := len(m.Body), len(m.Attributes), false
	if w.XMLText && !xmlText(m.Body) {
		size = base64Len(len(m.Body))
		count++
		size += len(EncodingAttribute) + len(EncodingBase64) + w.AttributeBytes
	}
	for k, v := range m.Attributes {
		if !library {
			if err := w.checkName(k); err != nil {
				return err
			}
		}
		if !utf8.ValidString(v) {
			return &InvalidError{"attribute " + quote(k), "the value isn't valid UTF-8"}
		}
		if w.MaxValueBytes > 0 && len(v) > w.MaxValueBytes {
			return &LimitError{Field: "attribute " + quote(k), Got: int64(len(v)), Max: int64(w.MaxValueBytes), System: w.System}
		}
		if w.XMLText && !xmlText(v) {
			fold = true
			count--
			continue
		}
		size += len(k) + len(v) + w.AttributeBytes
	}
	needMeta := m.ID != "" || m.meta != nil || due || fold
	if !needMeta && (w.MaxAttributes == 0 || count <= w.MaxAttributes) && (w.MaxBytes == 0 || size <= w.MaxBytes) {
		return nil
	}
	if m.meta == nil && !fold && needMeta {
		// Most messages that need metadata are far from every limit.
		bound := size + 6*len(m.ID) + 256
		if (w.MaxAttributes == 0 || count+1+bound/1024 <= w.MaxAttributes) && (w.MaxBytes == 0 || bound <= w.MaxBytes) &&
			(w.MaxValueBytes == 0 || 6*len(m.ID)+128 <= w.MaxValueBytes) {
			return nil
		}
		if (w.MaxAttributes == 0 || count < w.MaxAttributes) && (w.MaxBytes == 0 || bound <= w.MaxBytes) &&
			(w.MaxValueBytes == 0 || 6*len(m.ID)+128 <= w.MaxValueBytes) {
			return nil
		}
	}
	_, err := w.encode(m, library)
	return err
}

func (w *Wire) checkName(k string) error {
	field := "attribute " + quote(k)
	switch {
	case k == "":
		return &InvalidError{field, "the name is empty"}
	case strings.HasPrefix(k, ReservedPrefix):
		return &InvalidError{field, "names beginning with " + ReservedPrefix + " are reserved for this library"}
	case w.MaxNameBytes > 0 && len(k) > w.MaxNameBytes:
		return &LimitError{Field: "name of " + field, Got: int64(len(k)), Max: int64(w.MaxNameBytes), System: w.System}
	case !utf8.ValidString(k):
		return &InvalidError{field, "the name isn't valid UTF-8"}
	case w.StrictNames && !strictName(k):
		return &InvalidError{field, "the name may have letters, digits, _, - and single inner dots only, on " + w.System}
	}
	for _, p := range w.ReservedNames {
		if len(k) >= len(p) && strings.EqualFold(k[:len(p)], p) {
			return &InvalidError{field, "names beginning with " + p + " are reserved on " + w.System}
		}
	}
	return nil
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
	if len(s) == 0 {
		return false
	}
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c < ' ' && c != '\t' && c != '\n' && c != '\r' {
				return false
			}
			i++
			continue
		}
		r, n := decodeRune(s, i)
		if r == utf8.RuneError && n == 1 || r == 0xFFFE || r == 0xFFFF {
			return false
		}
		i += n
	}
	return true
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
