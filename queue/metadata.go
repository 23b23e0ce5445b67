package queue

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// metadata is what the library carries beside the user's message. A Message
// holds it behind a pointer that's never written through.
type metadata struct {
	enqueuedAt time.Time         // first enqueue, kept over hops
	ageFrom    time.Time         // see Delivery.AgeFrom
	due        time.Time         // not before
	failures   int               // of the message's former lives
	deadLetter *DeadLetterInfo   // history
	types      map[string]string // data types of attributes that aren't plain strings
	library    bool              // published again by the library itself
}

// metaJSON is the form of the metadata on the wire. Fields are only ever added;
// readers ignore what they don't know.
type metaJSON struct {
	ID         string            `json:"id,omitempty"`
	Due        int64             `json:"due,omitempty"` // Unix ms
	Enqueued   int64             `json:"enq,omitempty"` // Unix ms
	AgeFrom    int64             `json:"age,omitempty"` // Unix ms
	Failures   int               `json:"n,omitempty"`
	Types      map[string]string `json:"types,omitempty"`
	Attributes map[string]string `json:"attrs,omitempty"` // what couldn't go as attributes
	DeadLetter *DeadLetterInfo   `json:"dl,omitempty"`
}

// Encoded is a message as it goes on the wire. Body and Attributes may be those
// of the Message it was made from: don't write to them.
type Encoded struct {
	Body       []byte
	Attributes map[string]string
	// Types has the data types of attributes that a foreign producer gave
	// another type than a plain string; nil usually.
	Types map[string]string
	Size  int // as the system counts it
}

// Encode returns what to send for a message that Prepare has accepted. The
// body and attributes are the user's wherever the system can carry them;
// metadata is added only when there is some. The history of a dead letter is
// cut until it fits: first the stack, then the error text; then surplus
// attributes are folded into the metadata; then the history is left out.
func (w Wire) Encode(m *Message) (Encoded, error) {
	return w.encode(m, m.meta != nil && m.meta.library)
}

func (w *Wire) encode(m *Message, library bool) (Encoded, error) {
	meta := metaOf(m)
	enc := Encoded{Body: m.Body}
	if m.meta != nil {
		enc.Types = m.meta.types
	}
	encoding := ""
	if w.XMLText && !xmlText(m.Body) {
		if len(m.Body) == 0 {
			encoding, enc.Body = EncodingEmpty, []byte("-")
		} else {
			encoding = EncodingBase64
			enc.Body = base64.StdEncoding.AppendEncode(nil, m.Body)
		}
	}
	attrs := m.Attributes
	for _, k := range slices.Sorted(maps.Keys(m.Attributes)) {
		if v := m.Attributes[k]; w.XMLText && !xmlText(v) {
			if len(attrs) == len(m.Attributes) {
				attrs = maps.Clone(m.Attributes)
			}
			delete(attrs, k)
			meta.fold(k, v)
		}
	}
	for {
		out, over := w.assemble(&enc, attrs, encoding, meta)
		if over == nil {
			return out, nil
		}
		if !library || !meta.shrink(w, &attrs, m.Attributes, over) {
			return Encoded{}, over
		}
	}
}

func metaOf(m *Message) *metaJSON {
	j := &metaJSON{ID: m.ID}
	if md := m.meta; md != nil {
		j.Due, j.Enqueued, j.AgeFrom = unixMilli(md.due), unixMilli(md.enqueuedAt), unixMilli(md.ageFrom)
		j.Failures, j.Types, j.DeadLetter = md.failures, md.types, md.deadLetter
	}
	return j
}

func (j *metaJSON) fold(k, v string) {
	if j.Attributes == nil {
		j.Attributes = map[string]string{}
	}
	j.Attributes[k] = v
}

func (j *metaJSON) empty() bool {
	return j.ID == "" && j.Due == 0 && j.Enqueued == 0 && j.AgeFrom == 0 && j.Failures == 0 &&
		len(j.Types) == 0 && len(j.Attributes) == 0 && j.DeadLetter == nil
}

// shrink makes the metadata of a message that the library publishes smaller by
// one step, and reports whether there was one.
func (j *metaJSON) shrink(w *Wire, attrs *map[string]string, users map[string]string, over *LimitError) bool {
	tooMany := over.Field == "attributes"
	if dl := j.DeadLetter; dl != nil && !tooMany {
		cut := *dl
		switch {
		case cut.Stack != "":
			cut.Stack = half(cut.Stack)
		case len(cut.Error) > 64:
			cut.Error = half(cut.Error)
		default:
			j.DeadLetter = nil
			return true
		}
		j.DeadLetter = &cut
		return true
	}
	if tooMany && w.MaxValueBytes == 0 && len(*attrs) > 0 {
		if len(*attrs) == len(users) {
			*attrs = maps.Clone(users)
		}
		// The smallest first: it costs the least, and the choice is stable.
		keys := slices.SortedFunc(maps.Keys(*attrs), func(a, b string) int {
			if d := len((*attrs)[a]) - len((*attrs)[b]); d != 0 {
				return d
			}
			return bytes.Compare([]byte(a), []byte(b))
		})
		j.fold(keys[0], (*attrs)[keys[0]])
		delete(*attrs, keys[0])
		return true
	}
	if j.DeadLetter != nil {
		cut := *j.DeadLetter
		if cut.Stack != "" {
			cut.Stack = half(cut.Stack)
			j.DeadLetter = &cut
		} else {
			j.DeadLetter = nil
		}
		return true
	}
	// What only explains goes before the copy fails; the due time, the failures
	// and the id stay as long as they can.
	switch {
	case j.Enqueued != 0 || j.AgeFrom != 0:
		j.Enqueued, j.AgeFrom = 0, 0
	case j.Failures != 0:
		j.Failures = 0
	default:
		return false
	}
	return true
}

func half(s string) string {
	if len(s) < 64 {
		return ""
	}
	s = s[:len(s)/2]
	for len(s) > 0 {
		if r, n := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || n > 1 {
			break
		}
		s = s[:len(s)-1]
	}
	return s
}

// assemble puts the parts together and says which limit they are over.
func (w *Wire) assemble(enc *Encoded, attrs map[string]string, encoding string, meta *metaJSON) (Encoded, *LimitError) {
	out := *enc
	out.Attributes = attrs
	chunks := []string(nil)
	if !meta.empty() {
		chunks = w.chunks(meta.marshal())
	}
	if w.NeedsContent && len(out.Body) == 0 && len(attrs) == 0 && len(chunks) == 0 {
		encoding = EncodingEmpty
	}
	if encoding != "" || len(chunks) > 0 {
		out.Attributes = make(map[string]string, len(attrs)+len(chunks)+1)
		maps.Copy(out.Attributes, attrs)
		if encoding != "" {
			out.Attributes[EncodingAttribute] = encoding
		}
		for i, c := range chunks {
			out.Attributes[metaName(i)] = c
		}
	}
	if w.MaxAttributes > 0 && len(out.Attributes) > w.MaxAttributes {
		return out, &LimitError{Field: "attributes", Got: int64(len(out.Attributes)), Max: int64(w.MaxAttributes), System: w.System}
	}
	out.Size = len(out.Body)
	for k, v := range out.Attributes {
		out.Size += len(k) + len(v) + w.AttributeBytes
	}
	if w.MaxBytes > 0 && out.Size > w.MaxBytes {
		return out, &LimitError{Field: "body and attributes", Got: int64(out.Size), Max: int64(w.MaxBytes), System: w.System}
	}
	return out, nil
}

// marshal returns the JSON in a form that every system carries: characters that
// XML doesn't allow are escaped.
func (j *metaJSON) marshal() string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(j); err != nil { // strings and numbers only: can't happen
		return "{}"
	}
	s := bytes.TrimRight(b.Bytes(), "\n")
	if !xmlText(s) {
		s = bytes.ReplaceAll(s, []byte("\uFFFE"), []byte(`\ufffe`))
		s = bytes.ReplaceAll(s, []byte("\uFFFF"), []byte(`\uffff`))
	}
	return string(s)
}

func metaName(i int) string {
	if i == 0 {
		return MetaAttribute
	}
	return MetaAttribute + "-" + strconv.Itoa(i+1)
}

// chunks splits s where the system limits the length of a value, between runes.
func (w *Wire) chunks(s string) []string {
	if w.MaxValueBytes == 0 || len(s) <= w.MaxValueBytes {
		return []string{s}
	}
	var out []string
	for len(s) > w.MaxValueBytes {
		n := w.MaxValueBytes
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		out = append(out, s[:n])
		s = s[n:]
	}
	return append(out, s)
}

// Decode makes a Delivery from what a broker handed over. It takes the library's
// attributes out of attrs, which it may change and keep, and never fails: what
// isn't understood is left as it came. types has the data types of attributes
// that aren't plain strings, if the broker knows any. The backend fills in the
// rest: Source, BrokerID, Attempt, Deadline, Native, and ID and EnqueuedAt where
// they are still empty (FillFromBroker does).
func (w Wire) Decode(body []byte, attrs, types map[string]string) *Delivery {
	d := &Delivery{Message: Message{Body: body, Attributes: attrs}}
	if enc, ok := attrs[EncodingAttribute]; ok {
		switch enc {
		case EncodingBase64:
			if raw, err := base64.StdEncoding.AppendDecode(nil, body); err == nil {
				d.Body = raw
				delete(attrs, EncodingAttribute)
			}
		case EncodingEmpty:
			if len(body) == 0 || string(body) == "-" {
				d.Body = nil
				delete(attrs, EncodingAttribute)
			}
		}
	}
	if len(types) > 0 {
		d.meta = &metadata{types: types}
	}
	first, ok := attrs[MetaAttribute]
	if !ok {
		return d
	}
	whole, n := first, 1
	for ; ; n++ {
		more, ok := attrs[metaName(n)]
		if !ok {
			break
		}
		whole += more
	}
	var j metaJSON
	if err := json.Unmarshal([]byte(whole), &j); err != nil {
		return d
	}
	for i := range n {
		delete(attrs, metaName(i))
	}
	for k, v := range j.Attributes {
		if _, taken := attrs[k]; !taken {
			attrs[k] = v
		}
	}
	if len(types) == 0 {
		types = j.Types
	}
	d.restore(&j, types)
	return d
}

func (d *Delivery) restore(j *metaJSON, types map[string]string) {
	d.ID = j.ID
	c := &metadata{
		enqueuedAt: fromMilli(j.Enqueued), ageFrom: fromMilli(j.AgeFrom), due: fromMilli(j.Due),
		failures: max(j.Failures, 0), deadLetter: j.DeadLetter, types: types,
	}
	d.receive(c)
}

// receive splits carried metadata into what belongs to this delivery alone and
// what goes along when the message is forwarded.
func (d *Delivery) receive(c *metadata) {
	d.carried = c
	d.EnqueuedAt = c.enqueuedAt
	d.Failures = c.failures
	d.DeadLetter = c.deadLetter
	d.meta = nil
	if c.deadLetter != nil || len(c.types) > 0 {
		d.meta = &metadata{types: c.types, deadLetter: c.deadLetter}
		if c.deadLetter != nil {
			d.meta.enqueuedAt = c.enqueuedAt
		}
	}
}

// NewDelivery makes a Delivery from a message as it was accepted by a broker
// that keeps messages in the process, without encoding. m's body and attributes
// are taken over; what the library carries with it is isolated.
func NewDelivery(m Message) *Delivery {
	d := &Delivery{Message: m}
	d.receiveNative()
	return d
}

func (d *Delivery) receiveNative() {
	c := d.meta
	if c == nil {
		return
	}
	if c.deadLetter != nil {
		cp := *c
		dl := *c.deadLetter
		cp.deadLetter = &dl
		c = &cp
	}
	d.receive(c)
}

// FillFromBroker sets what the metadata left open: the broker's id and time.
func (d *Delivery) FillFromBroker(brokerID string, enqueuedAt time.Time) {
	d.BrokerID = brokerID
	if d.ID == "" {
		d.ID = brokerID
	}
	if d.EnqueuedAt.IsZero() {
		d.EnqueuedAt = enqueuedAt
	}
}

func unixMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	// Rounded up, so that a due time is never early.
	return t.Add(time.Millisecond - 1).UnixMilli()
}

// Times beyond this can't be written as RFC 3339 and are no times.
const maxMilli = 253402300799999

func fromMilli(ms int64) time.Time {
	if ms <= 0 || ms > maxMilli {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

func base64Len(n int) int { return base64.StdEncoding.EncodedLen(n) }
