package sqstest

import (
	"crypto/md5" //nolint:gosec // it's the checksum of the protocol
	"encoding/binary"
	"encoding/hex"
)

func md5Of(s string) string {
	sum := md5.Sum([]byte(s)) //nolint:gosec // see above
	return hex.EncodeToString(sum[:])
}

// md5OfAttributes is the checksum of attributes, which are sorted by name. Each
// is its name, its type and its value, each with its length before it, and
// before the value a 1 for text, a 2 for bytes.
func md5OfAttributes(attrs []attribute) string {
	if len(attrs) == 0 {
		return ""
	}
	var b []byte
	field := func(s string) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s))) //nolint:gosec // at most 1 MiB
		b = append(b, s...)
	}
	for _, a := range attrs {
		field(a.name)
		field(a.dataType)
		if a.binary {
			b = append(b, 2)
		} else {
			b = append(b, 1)
		}
		field(a.value)
	}
	sum := md5.Sum(b) //nolint:gosec // see above
	return hex.EncodeToString(sum[:])
}
