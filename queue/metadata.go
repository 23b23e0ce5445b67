package queue

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// metadata is what the library carries beside the user's message. A Message
// holds it behind a pointer that's never written through, so that copies may
// share it.
type metadata struct {
	enqueuedAt time.Time         // first enqueue, kept over hops
	ageFrom    time.Time         // see Delivery.AgeFrom
	due        time.Time         // not before
	failures   int               // of the message's former lives
	deadLetter *DeadLetterInfo   // history
	types      map[string]string // data types of attributes that aren't plain strings
	key        string            // OrderingKey, where the queue can't carry it
	library    bool              // published again by the library itself
	// exact, with library, is of a copy for another system: what that can't carry of
	// what a user gave is an error there, and isn't left out. named says that the ID
	// is the user's own.
	exact, named bool
}

// metaJSON is the form of the metadata on the wire. Fields are only ever added;
// readers ignore what they don't know.
type metaJSON struct {
	ID         string            `json:"id,omitempty"`
	Due        int64             `json:"due,omitempty"` // Unix ms
	Enqueued   int64             `json:"enq,omitempty"` // Unix ms
	AgeFrom    int64             `json:"age,omitempty"` // Unix ms
	Failures   int               `json:"n,omitempty"`
	Key        string            `json:"key,omitempty"`
	Types      map[string]string `json:"types,omitempty"`
	Attributes map[string]string `json:"attrs,omitempty"` // what couldn't go as attributes
	Binary     map[string][]byte `json:"bin,omitempty"`   // the same, for what isn't UTF-8
	DeadLetter *DeadLetterInfo   `json:"dl,omitempty"`
}

func metaOf(m *Message) metaJSON {
	j := metaJSON{ID: m.ID}
	md := m.meta
	if md == nil {
		return j
	}
	j.Due, j.Enqueued, j.AgeFrom = unixMilli(md.due), unixMilli(md.enqueuedAt), unixMilli(md.ageFrom)
	j.Failures, j.Key = md.failures, md.key
	if md.deadLetter != nil {
		dl := *md.deadLetter
		dl.FirstAt, dl.LastAt = wireTime(dl.FirstAt), wireTime(dl.LastAt)
		// Said already, at another place.
		if dl.ID == j.ID {
			dl.ID = ""
		}
		if unixMilli(dl.FirstAt) == j.Enqueued {
			dl.FirstAt = time.Time{}
		}
		j.DeadLetter = &dl
	}
	return j
}

func (j *metaJSON) empty() bool {
	return j.ID == "" && j.Due == 0 && j.Enqueued == 0 && j.AgeFrom == 0 && j.Failures == 0 && j.Key == "" &&
		len(j.Types) == 0 && !j.folds() && j.DeadLetter == nil
}

// folds reports whether the metadata holds attributes of the user.
func (j *metaJSON) folds() bool { return len(j.Attributes) > 0 || len(j.Binary) > 0 }

func (j *metaJSON) fold(k, v string) {
	if !utf8.ValidString(v) && utf8.ValidString(k) {
		if j.Binary == nil {
			j.Binary = map[string][]byte{}
		}
		j.Binary[k] = []byte(v)
		return
	}
	if j.Attributes == nil {
		j.Attributes = map[string]string{}
	}
	j.Attributes[k] = v
}

// marshal returns the JSON in a form that every system carries: characters that
// XML doesn't allow are escaped.
func (j *metaJSON) marshal() string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(j); err != nil {
		// Only a time outside of what RFC 3339 can say could do this, and
		// wireTime lets none through. The user's attributes come first.
		cut := *j
		cut.DeadLetter = nil
		b.Reset()
		if e.Encode(&cut) != nil {
			return ""
		}
	}
	s := bytes.TrimRight(b.Bytes(), "\n")
	if bytes.Contains(s, []byte("\uFFFE")) || bytes.Contains(s, []byte("\uFFFF")) {
		s = bytes.ReplaceAll(s, []byte("\uFFFE"), []byte(`\ufffe`))
		s = bytes.ReplaceAll(s, []byte("\uFFFF"), []byte(`\uffff`))
	}
	return string(s)
}

// metaBound returns the most bytes that the metadata of m takes as JSON, when
// that's easily known: not with a history, types or a key.
func metaBound(m *Message) (n int, known bool) {
	const number = len(`"due":,`) + len("-9223372036854775808")
	if m.ID != "" {
		n += len(`"id":"",`) + jsonLen(m.ID)
	}
	if md := m.meta; md != nil {
		if md.deadLetter != nil || len(md.types) > 0 || md.key != "" {
			return 0, false
		}
		if !md.due.IsZero() {
			n += number
		}
		if !md.enqueuedAt.IsZero() {
			n += number
		}
		if !md.ageFrom.IsZero() {
			n += number
		}
		if md.failures != 0 {
			n += number
		}
	}
	if n > 0 {
		n += len("{}")
	}
	return n, true
}

// jsonLen is the length of s in JSON as marshal writes it, without its quotes.
func jsonLen(s string) int {
	n := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			i++
			switch {
			case c == '"' || c == '\\' || c == '\n' || c == '\r' || c == '\t' || c == '\b' || c == '\f':
				n += 2
			case c < ' ':
				n += len(`\u0000`)
			default:
				n++
			}
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		i += size
		switch {
		case r == utf8.RuneError && size == 1, r == '\u2028', r == '\u2029', r == '\uFFFE', r == '\uFFFF':
			n += len(`\u0000`)
		default:
			n += size
		}
	}
	return n
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
		for n > 1 && !utf8.RuneStart(s[n]) {
			n--
		}
		out = append(out, s[:n])
		s = s[n:]
	}
	return append(out, s)
}

// readMeta finds the library's metadata in attributes, and in how many of them
// it lies; nil when there's none, or none that can be understood.
func readMeta(attrs map[string]string) (*metaJSON, int) {
	whole, ok := attrs[MetaAttribute]
	if !ok {
		return nil, 0
	}
	n := 1
	for ; ; n++ {
		more, ok := attrs[metaName(n)]
		if !ok {
			break
		}
		whole += more
	}
	if !strings.HasPrefix(whole, "{") {
		return nil, 0
	}
	var j metaJSON
	if err := json.Unmarshal([]byte(whole), &j); err != nil {
		return nil, 0
	}
	if j.empty() { // nothing that we know: somebody else's
		return nil, 0
	}
	return &j, n
}

// Decode makes a Delivery from what a broker handed over. It takes the library's
// attributes out of attrs, which it may change and keep, and never fails: what
// isn't understood is left as it came. types has the data types of attributes
// that aren't plain strings, if the broker knows any. The backend fills in the
// rest: Source, BrokerID, Attempt, Deadline, Native, and ID and EnqueuedAt where
// they are still empty (FillFromBroker does).
func (w Wire) Decode(body []byte, attrs, types map[string]string) *Delivery {
	j, n := readMeta(attrs)
	if j != nil {
		types = w.allTypes(attrs, types, j.Types)
		if j.folds() && !w.restorable(body, attrs, types, j, n) {
			j = nil
		}
	}
	d := &Delivery{Message: Message{Body: body, Attributes: attrs}}
	d.decodeBody()
	if j == nil {
		if len(types) > 0 {
			d.meta = &metadata{types: types}
		}
		return d
	}
	for i := range n {
		delete(attrs, metaName(i))
	}
	j.unfold(attrs)
	d.ID = j.ID
	dl := j.DeadLetter
	if dl != nil {
		if dl.ID == "" {
			dl.ID = j.ID
		}
		if dl.FirstAt = wireTime(dl.FirstAt); dl.FirstAt.IsZero() {
			dl.FirstAt = fromMilli(j.Enqueued)
		}
		dl.LastAt = wireTime(dl.LastAt)
		dl.Failures, dl.Redriven = sane(dl.Failures), sane(dl.Redriven)
	}
	d.receive(&metadata{
		enqueuedAt: fromMilli(j.Enqueued), ageFrom: fromMilli(j.AgeFrom), due: fromMilli(j.Due),
		failures: sane(j.Failures), deadLetter: dl, types: types, key: j.Key,
	})
	return d
}

func (d *Delivery) decodeBody() {
	switch d.Attributes[EncodingAttribute] {
	case EncodingBase64:
		raw, err := base64.StdEncoding.AppendDecode(nil, d.Body)
		if err != nil {
			return
		}
		d.Body = raw
	case EncodingEmpty:
		if len(d.Body) > 0 && string(d.Body) != "-" {
			return
		}
		d.Body = nil
	default:
		return
	}
	delete(d.Attributes, EncodingAttribute)
}

// unfold puts back the attributes that travelled in the metadata. What came as
// an attribute wins.
func (j *metaJSON) unfold(attrs map[string]string) {
	for k, v := range j.Attributes {
		if _, taken := attrs[k]; !taken {
			attrs[k] = v
		}
	}
	for k, v := range j.Binary {
		if _, taken := attrs[k]; !taken {
			attrs[k] = string(v)
		}
	}
}

// allTypes adds the types that travelled in the metadata to those of the
// broker, which knows better about its own attributes.
func (w *Wire) allTypes(attrs, native, carried map[string]string) map[string]string {
	if len(carried) == 0 {
		return native
	}
	all := make(map[string]string, len(native)+len(carried))
	for k, t := range carried {
		if _, ok := attrs[k]; !ok || !w.TypedAttributes {
			all[k] = t
		}
	}
	maps.Copy(all, native)
	return all
}

// restorable reports whether a message that came with attributes in its
// metadata can be sent like that again. It always can when this library wrote
// it; but a foreign producer may have written the same more tightly than we
// would, and a message that we couldn't copy could never be dead-lettered.
func (w *Wire) restorable(body []byte, attrs, types map[string]string, j *metaJSON, n int) bool {
	m := Message{ID: j.ID, Body: body, Attributes: maps.Clone(attrs), meta: &metadata{types: types}}
	for i := range n {
		delete(m.Attributes, metaName(i))
	}
	d := &Delivery{Message: m}
	d.decodeBody()
	j.unfold(d.Attributes)
	_, err := newEncoder(w, &d.Message).fit(w.MaxBytes)
	return err == nil
}

// receive splits carried metadata into what belongs to this delivery alone and
// what goes along when the message is forwarded.
func (d *Delivery) receive(c *metadata) {
	d.carried = c
	d.EnqueuedAt = c.enqueuedAt
	d.Failures = c.failures
	d.meta, d.DeadLetter = nil, nil
	if c.deadLetter != nil {
		dl := *c.deadLetter // the handler's own; it may change it
		d.DeadLetter = &dl
		d.meta = &metadata{types: c.types, deadLetter: c.deadLetter, enqueuedAt: c.enqueuedAt}
	} else if len(c.types) > 0 {
		d.meta = &metadata{types: c.types}
	}
}

// NewDelivery makes a Delivery from a message as it was accepted by a broker
// that keeps messages in the process, without encoding. m's body and attributes
// are taken over; what only concerned its publishing is left out.
func NewDelivery(m Message) *Delivery {
	m.Delay, m.DeliverAt, m.DedupID, m.Options = 0, time.Time{}, "", nil
	d := &Delivery{Message: m}
	if c := m.meta; c != nil {
		d.receive(c)
	}
	return d
}

// FillFromBroker sets what the metadata left open: the broker's id and time.
func (d *Delivery) FillFromBroker(brokerID string, enqueuedAt time.Time) {
	d.BrokerID, d.copied = brokerID, enqueuedAt
	if d.ID == "" {
		d.ID = brokerID
	}
	if d.EnqueuedAt.IsZero() {
		d.EnqueuedAt = enqueuedAt
	}
}

// FillDeadLetter adds the history of a message that the broker itself has
// dead-lettered, as far as it tells. What's known from before stays: the first
// enqueue, and that it was moved back. It's for backends, before FillFromBroker.
func (d *Delivery) FillDeadLetter(info DeadLetterInfo) {
	var c metadata
	if d.carried != nil {
		c = *d.carried
	} else if d.meta != nil {
		c.types = d.meta.types
	}
	if info.ID == "" {
		info.ID = d.ID
	}
	info.FirstAt, info.LastAt = wireTime(info.FirstAt), wireTime(info.LastAt)
	info.Attempt = sane(info.Attempt)
	if c.enqueuedAt.IsZero() {
		c.enqueuedAt = info.FirstAt
	} else {
		info.FirstAt = c.enqueuedAt
	}
	if old := c.deadLetter; old != nil {
		info.Redriven, info.Operation = old.Redriven, old.Operation
	}
	c.deadLetter = &info
	d.receive(&c)
}

func unixMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	// Rounded up, so that a due time is never early.
	return max(t.Add(time.Millisecond-1).UnixMilli(), 0)
}

// Times beyond this can't be written as RFC 3339 and are no times.
const maxMilli = 253402300799999

func fromMilli(ms int64) time.Time {
	if ms <= 0 || ms > maxMilli {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// wireTime is t as the metadata carries it; zero when it can't.
func wireTime(t time.Time) time.Time {
	if y := t.Year(); t.IsZero() || y < 1 || y > 9999 {
		return time.Time{}
	}
	t = t.UTC().Truncate(time.Millisecond)
	if t.Year() > 9999 {
		return time.Time{}
	}
	return t
}

// sane bounds a count that somebody else may have written, so that adding to it
// doesn't overflow.
func sane(n int) int { return min(max(n, 0), 1<<30) }

func base64Len(n int) int { return base64.StdEncoding.EncodedLen(n) }

// FillDue notes when a broker that has delayed the message by itself let it go
// for the first time: its age counts from then. It's for backends that know.
func (d *Delivery) FillDue(due time.Time) { d.due = due }

// HasMetadata reports whether the library carries something along with m beside
// its fields: then a broker must keep what Encode returns, or m itself. It's for
// backends.
func (m *Message) HasMetadata() bool { return m.meta != nil }
