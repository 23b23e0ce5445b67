package queue

import (
	"encoding/base64"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Encoded is a message as it goes on the wire. Body and Attributes may be those
// of the Message it was made from: don't write to them.
type Encoded struct {
	Body       []byte
	Attributes map[string]string
	// Types has the data types of attributes that a foreign producer gave
	// another type than a plain string; nil usually, and always on a wire
	// without TypedAttributes.
	Types map[string]string
	Size  int // as the system counts it
}

// Encode returns what to send for a message that Prepare has accepted; it
// doesn't fail for one. The body and attributes are the user's wherever the
// system can carry them; metadata is added only when there is some. The history
// of a dead letter is cut until it fits: first the stack, then the error text;
// then attributes beyond the system's limit travel in the metadata; then the
// history is left out.
func (w Wire) Encode(m *Message) (Encoded, error) {
	e := newEncoder(&w, m)
	limit := w.MaxBytes - w.ReserveBytes
	library := m.meta != nil && m.meta.library
	if library {
		limit = w.MaxBytes
	}
	out, over := e.assemble(0, limit)
	if over == nil {
		return out, nil
	}
	if m.meta == nil || !library && m.meta.deadLetter == nil && len(m.meta.types) == 0 {
		// A new message: the user must know. But the time from which its age
		// counts was our addition.
		if e.meta.AgeFrom != 0 {
			e.meta.AgeFrom = 0
			if out, over := e.assemble(0, limit); over == nil {
				return out, nil
			}
		}
		return Encoded{}, over.err
	}
	if out, ok := e.shrink(limit, library); ok {
		return out, nil
	}
	if library && e.meta.Due == 0 && !(m.meta.exact && (m.meta.named || e.meta.Key != "" || m.meta.deadLetter != nil)) {
		if out, ok := e.asItCame(limit); ok {
			return out, nil
		}
	}
	return Encoded{}, over.err
}

// encoder puts one message together, several times when it doesn't fit.
type encoder struct {
	w        *Wire
	m        *Message
	body     []byte
	encoding string
	types    map[string]string // of the attributes there are, as far as they still hold
	native   map[string]string // the attributes that can go as they are
	folded   []string          // the names of the others
	meta     metaJSON          // without attributes
	noTypes  bool              // leave types out of the metadata
	order    []string          // native names, in the order in which they are folded
}

func newEncoder(w *Wire, m *Message) *encoder {
	e := &encoder{w: w, m: m, body: m.Body, native: m.Attributes, meta: metaOf(m)}
	if w.XMLText && !xmlBody(m.Body) {
		if len(m.Body) == 0 {
			e.encoding, e.body = EncodingEmpty, []byte("-")
		} else {
			e.encoding = EncodingBase64
			e.body = base64.StdEncoding.AppendEncode(nil, m.Body)
		}
	}
	if m.meta != nil && len(m.meta.types) > 0 {
		e.types = make(map[string]string, len(m.meta.types))
		for k, t := range m.meta.types {
			if v, ok := m.Attributes[k]; ok && fitsType(t, v) {
				e.types[k] = t
			}
		}
	}
	for k, v := range m.Attributes {
		if !w.carries(k, v, e.types[k]) {
			e.folded = append(e.folded, k)
		}
	}
	if len(e.folded) > 0 {
		e.native = maps.Clone(m.Attributes)
		for _, k := range e.folded {
			delete(e.native, k)
		}
	}
	return e
}

// over says which limit a message is beyond.
type over struct {
	err   *LimitError
	count int // attributes too many; 0: it's the bytes
}

// assemble puts the parts together, with the first extra attributes of e.order
// in the metadata beside those that can't go elsewhere.
func (e *encoder) assemble(extra, limit int) (Encoded, *over) {
	w := e.w
	meta := e.meta
	native := e.native
	if extra > 0 {
		native = maps.Clone(native)
	}
	for _, names := range [2][]string{e.folded, e.order[:extra]} {
		for _, k := range names {
			meta.fold(k, e.m.Attributes[k])
			delete(native, k) // e.folded aren't in it
		}
	}
	meta.Types = e.metaTypes(native)
	out := Encoded{Body: e.body, Attributes: native, Types: e.wireTypes(native)}
	var chunks []string
	if !meta.empty() {
		chunks = w.chunks(meta.marshal())
	}
	encoding := e.encoding
	if w.NeedsContent && len(out.Body) == 0 && len(native) == 0 && len(chunks) == 0 {
		encoding = EncodingEmpty
	}
	if encoding != "" || len(chunks) > 0 {
		out.Attributes = make(map[string]string, len(native)+len(chunks)+1)
		maps.Copy(out.Attributes, native)
		if encoding != "" {
			out.Attributes[EncodingAttribute] = encoding
		}
		for i, c := range chunks {
			out.Attributes[metaName(i)] = c
		}
	}
	return out, e.measure(&out, limit, len(out.Attributes) > len(native))
}

// measure sets the size of out and checks it.
func (e *encoder) measure(out *Encoded, limit int, ours bool) *over {
	w := e.w
	if n := len(out.Attributes); w.MaxAttributes > 0 && n > w.MaxAttributes {
		field := "attributes"
		if ours {
			field = "attributes with the library's own"
		}
		return &over{&LimitError{Field: field, Got: int64(n), Max: int64(w.MaxAttributes), System: w.System}, n - w.MaxAttributes}
	}
	out.Size = len(out.Body)
	for k, v := range out.Attributes {
		out.Size += len(k) + len(v) + w.AttributeBytes
		if t, ok := out.Types[k]; ok {
			out.Size += len(t) - w.AttributeBytes
		}
	}
	if w.MaxBytes > 0 && out.Size > limit {
		field := "body"
		if len(out.Attributes) > 0 {
			field = "body and attributes"
		}
		return &over{&LimitError{Field: field, Got: int64(out.Size), Max: int64(limit), System: w.System}, 0}
	}
	return nil
}

// wireTypes are the types that go along with the attributes.
func (e *encoder) wireTypes(native map[string]string) map[string]string {
	if !e.w.TypedAttributes {
		return nil
	}
	return typesOf(e.types, func(k string) bool { _, ok := native[k]; return ok })
}

// metaTypes are the types that must travel in the metadata.
func (e *encoder) metaTypes(native map[string]string) map[string]string {
	if e.noTypes {
		return nil
	}
	return typesOf(e.types, func(k string) bool { _, ok := native[k]; return !ok || !e.w.TypedAttributes })
}

func typesOf(types map[string]string, want func(k string) bool) map[string]string {
	var out map[string]string
	for k, t := range types {
		if want(k) {
			if out == nil {
				out = make(map[string]string, len(types))
			}
			out[k] = t
		}
	}
	return out
}

// shrink leaves out one thing after the other until the message fits.
func (e *encoder) shrink(limit int, library bool) (Encoded, bool) {
	if dl := e.meta.DeadLetter; dl != nil {
		texts := *dl
		dl.Stack, dl.Error = "", ""
		if extra, err := e.fit(limit); err == nil {
			// It fits without the texts: as much of them as there is room for.
			dl.Error = e.longest(texts.Error, func(s string) bool { dl.Error = s; return e.fits(extra, limit) })
			dl.Stack = e.longest(texts.Stack, func(s string) bool { dl.Stack = s; return e.fits(extra, limit) })
			out, over := e.assemble(extra, limit)
			return out, over == nil
		}
	}
	exact := e.m.meta.exact
	for _, leaveOut := range []func(){
		func() {
			if !exact {
				e.meta.DeadLetter = nil
			}
		},
		func() { e.meta.Enqueued, e.meta.AgeFrom = 0, 0 },
		func() { e.meta.Failures = 0 },
		func() {
			if !exact {
				e.meta.Key = ""
			}
		},
		func() {
			// The broker's own, when it hasn't been on the wire before: then
			// it fits. A delay keeps it, as it must come back as the same.
			if library && e.meta.Due == 0 && !(exact && e.m.meta.named) {
				e.meta.ID = ""
			}
		},
		func() { e.noTypes, e.order = true, nil },
	} {
		leaveOut()
		if extra, err := e.fit(limit); err == nil {
			out, over := e.assemble(extra, limit)
			return out, over == nil
		}
	}
	return Encoded{}, false
}

// fit tells how many attributes must be folded so that the message fits.
func (e *encoder) fit(limit int) (extra int, err error) {
	if e.order == nil {
		e.order = e.foldOrder()
	}
	for {
		_, over := e.assemble(extra, limit)
		if over == nil {
			return extra, nil
		}
		// Folding never makes a message shorter.
		if over.count == 0 || extra == len(e.order) {
			return 0, over.err
		}
		extra = min(extra+over.count, len(e.order))
	}
}

func (e *encoder) fits(extra, limit int) bool {
	_, over := e.assemble(extra, limit)
	return over == nil
}

// longest returns the longest beginning of s, in whole runes, that's accepted.
func (e *encoder) longest(s string, accepts func(string) bool) string {
	if accepts(s) {
		return s
	}
	n := sort.Search(len(s), func(n int) bool { return !accepts(wholeRunes(s, n+1)) })
	return wholeRunes(s, n)
}

// foldOrder lists the native attributes so that the ones that grow least by
// travelling in the metadata come first, the short ones before the long ones.
func (e *encoder) foldOrder() []string {
	type cost struct {
		name        string
		growth, len int
	}
	costs := make([]cost, 0, len(e.native))
	for k, v := range e.native {
		c := cost{name: k, growth: jsonLen(k) + jsonLen(v) - len(k) - len(v), len: len(k) + len(v)}
		if !utf8.ValidString(v) {
			c.growth = jsonLen(k) + base64Len(len(v)) - len(k) - len(v)
		}
		if t, ok := e.types[k]; ok && e.w.TypedAttributes {
			c.growth += e.w.AttributeBytes - len(t)
			if !e.noTypes {
				c.growth += len(`"":"",`) + jsonLen(k) + jsonLen(t)
			}
		}
		costs = append(costs, c)
	}
	slices.SortFunc(costs, func(a, b cost) int {
		if a.growth != b.growth {
			return a.growth - b.growth
		}
		if a.len != b.len {
			return a.len - b.len
		}
		return strings.Compare(a.name, b.name)
	})
	names := make([]string, len(costs))
	for i, c := range costs {
		names[i] = c.name
	}
	return names
}

// asItCame returns the message without any metadata and with attributes whose
// names are ours left in place, if it then still says what it says: a foreign
// message may fill all the room there is.
func (e *encoder) asItCame(limit int) (Encoded, bool) {
	for _, k := range e.folded {
		if !ownName(k) || k == EncodingAttribute && e.encoding != "" || !e.w.carriesValue(e.m.Attributes[k], e.types[k]) {
			return Encoded{}, false
		}
	}
	out := Encoded{Body: e.body, Attributes: e.m.Attributes, Types: e.wireTypes(e.m.Attributes)}
	if e.encoding != "" {
		out.Attributes = maps.Clone(out.Attributes)
		if out.Attributes == nil {
			out.Attributes = map[string]string{}
		}
		out.Attributes[EncodingAttribute] = e.encoding
	}
	if e.measure(&out, limit, false) != nil {
		return Encoded{}, false
	}
	back := e.w.Decode(out.Body, maps.Clone(out.Attributes), nil)
	return out, back.carried == nil && string(back.Body) == string(e.m.Body) && maps.Equal(back.Attributes, e.m.Attributes)
}

// wholeRunes returns the first n bytes of s, or a little less so as not to split
// a rune.
func wholeRunes(s string, n int) string {
	if n >= len(s) {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func isBinary(kind string) bool { return kind == "Binary" || strings.HasPrefix(kind, "Binary.") }

// fitsType reports whether v still is a value of that type: a handler may have
// changed it before it forwarded the message.
func fitsType(kind, v string) bool {
	if kind == "Number" || strings.HasPrefix(kind, "Number.") {
		_, err := strconv.ParseFloat(v, 64)
		return err == nil && strings.Trim(v, "0123456789+-.eE") == ""
	}
	return kind != ""
}
