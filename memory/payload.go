package memory

import (
	"encoding/binary"
	"math"
	"sync/atomic"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// payload is a message as it's stored. It's not written to once sent, as long as
// somebody may read it. Its size counts, as there may be millions, and so does how
// many pointers it has, which the garbage collector follows again and again: body
// and attributes are in one piece of memory without any. See chunks, too.
type payload struct {
	id      string
	data    []byte // the body, then the attributes as a packer leaves them
	from    *chunk // that data is in; nil: it's alone
	more    *extra
	body    uint32 // the length of the body
	few     uint8  // the number of attributes, or less
	hasBody bool   // it isn't nil
	// encoded says that body and attributes are in the form for the wire, as they
	// contain metadata of the library.
	encoded bool
}

// extra is what few messages have.
type extra struct {
	due     time.Time // of a message that the broker itself delays
	types   map[string]string
	options []queue.MessageOption
}

func (p *payload) extra() *extra {
	if p.more == nil {
		p.more = &extra{}
	}
	return p.more
}

// options are the provider-specific ones that the message was published with.
func (p *payload) options() []queue.MessageOption {
	if p.more == nil {
		return nil
	}
	return p.more.options
}

// A packer gathers attributes in the form in which they're stored: the lengths of
// name and value, and both of them, of one after the other. Its zero value is empty.
type packer struct {
	few   [256]byte // so that they needn't go to the heap
	n     int       // of few
	more  []byte    // instead of few, where that's too short
	count int
	size  int // of names and values together
}

func (k *packer) add(name, value string) {
	const lengths = 2 * binary.MaxVarintLen32
	k.count++
	k.size += len(name) + len(value)
	if k.more == nil {
		if k.n+len(name)+len(value)+lengths <= len(k.few) {
			k.n = len(appendText(appendText(k.few[:k.n], name), value))
			return
		}
		k.more = append(k.more, k.few[:k.n]...)
	}
	k.more = appendText(appendText(k.more, name), value)
}

func (k *packer) packed() []byte {
	if k.more != nil {
		return k.more
	}
	return k.few[:k.n]
}

func appendText(b []byte, s string) []byte {
	if len(s) < 0x80 {
		b = append(b, byte(len(s)))
	} else {
		b = binary.AppendUvarint(b, uint64(len(s)))
	}
	return append(b, s...)
}

// cutText is the other end of appendText.
func cutText(from string) (s, rest string) {
	n, at := int(from[0]), 1
	if n >= 0x80 {
		n = 0
		for shift := 0; ; shift += 7 {
			c := from[at-1]
			n |= int(c&0x7f) << shift
			if c < 0x80 {
				break
			}
			at++
		}
	}
	return from[at : at+n], from[at+n:]
}

// store copies a message that PrepareEach has accepted, whose attributes are in
// attrs already.
func (p *payload) store(prepared *queue.Prepared, attrs *packer, w *queue.Wire, in *chunks) (size int, err error) {
	m := prepared.Message
	if m.HasMetadata() {
		// The same way as on a real wire: what doesn't fit is cut here too.
		enc, err := w.Encode(m)
		if err != nil {
			return 0, err
		}
		p.encoded = true
		if enc.Types != nil {
			p.extra().types = enc.Types
		}
		size = p.keepMap(enc.Body, enc.Attributes, in)
	} else {
		p.id = m.ID
		size = p.keep(m.Body, attrs, in)
	}
	if len(prepared.Options) > 0 {
		p.extra().options = append([]queue.MessageOption(nil), prepared.Options...)
	}
	return size, nil
}

// keepMap copies body and attributes and returns their size.
func (p *payload) keepMap(body []byte, attrs map[string]string, in *chunks) (size int) {
	var k packer
	for name, value := range attrs {
		k.add(name, value)
	}
	return p.keep(body, &k, in)
}

// keep is keepMap, of attributes that are packed already.
func (p *payload) keep(body []byte, attrs *packer, in *chunks) (size int) {
	packed := attrs.packed()
	p.data, p.from = in.take(len(body) + len(packed))
	copy(p.data[copy(p.data, body):], packed)
	p.body, p.hasBody, p.few = uint32(len(body)), body != nil, uint8(min(attrs.count, math.MaxUint8)) //nolint:gosec // no limit is near 4 GB
	return len(body) + attrs.size
}

// moveOut stores what's in a chunk alone: in p itself if nobody reads that meanwhile,
// else in what it returns.
func (p *payload) moveOut(of *chunks, alone bool) (copied payload, ok bool) {
	if p.from == nil {
		return payload{}, false
	}
	own := clone(p.data)
	if alone {
		of.end(p.from)
		p.data, p.from = own, nil
		return payload{}, false
	}
	copied = *p
	copied.data, copied.from = own, nil
	return copied, true
}

// forget leaves what's stored to others.
func (p *payload) forget() {
	p.data, p.from, p.body, p.few, p.hasBody = nil, nil, 0, 0, false
}

// load fills a delivery with copies that are its own.
func (p *payload) load(d *queue.Delivery, w *queue.Wire) {
	body, attrs := p.content()
	if p.encoded {
		var types map[string]string
		if p.more != nil {
			types = p.more.types
		}
		*d = *w.Decode(body, attrs, types)
		return
	}
	d.ID, d.Body, d.Attributes = p.id, body, attrs
}

// content returns copies of body and attributes as they're stored.
func (p *payload) content() (body []byte, attrs map[string]string) {
	if p.hasBody {
		body = clone(p.data[:p.body])
	}
	if len(p.data) == int(p.body) {
		return body, nil
	}
	attrs = make(map[string]string, p.few)
	text := string(p.data[p.body:]) // one for all
	for len(text) > 0 {
		var name, value string
		name, text = cutText(text)
		value, text = cutText(text)
		attrs[name] = value
	}
	return body, attrs
}

// clone is bytes.Clone without capacity to spare, and without clearing memory
// that's written to at once.
func clone(b []byte) []byte {
	c := make([]byte, len(b))
	copy(c, b)
	return c
}

// ids renders the broker's ids of a queue. They cost next to nothing when
// they're asked for in order.
type ids struct {
	prefix [idPrefix]byte
	chunk  atomic.Pointer[idChunk]
}

// idChunk has the ids of idsPerChunk successive messages.
type idChunk struct {
	no   uint64
	text string
}

const (
	idsPerChunk = 64
	idPrefix    = 8
	idLength    = idPrefix + 1 + 12
	idDigits    = "0123456789abcdef"
)

func randomPrefix(r uint64) (p [idPrefix]byte) {
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	for i := range p {
		p[i] = letters[r&31]
		r >>= 5
	}
	return p
}

// of returns the id of the seq-th message.
func (g *ids) of(seq uint64) string {
	no := seq / idsPerChunk
	c := g.chunk.Load()
	if c == nil || no > c.no {
		buf := make([]byte, 0, idsPerChunk*idLength)
		for i := range uint64(idsPerChunk) {
			buf = g.append(buf, no*idsPerChunk+i)
		}
		c = &idChunk{no, string(buf)}
		g.chunk.Store(c)
	}
	if no == c.no {
		at := int(seq%idsPerChunk) * idLength
		return c.text[at : at+idLength]
	}
	// An older message: its neighbours are done.
	return string(g.append(make([]byte, 0, idLength), seq))
}

func (g *ids) append(buf []byte, seq uint64) []byte {
	buf = append(buf, g.prefix[:]...)
	buf = append(buf, '-')
	for shift := 44; shift >= 0; shift -= 4 {
		buf = append(buf, idDigits[seq>>shift&15])
	}
	return buf
}
