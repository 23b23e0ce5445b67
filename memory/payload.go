package memory

import (
	"sync/atomic"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// payload is a message as it's stored. It's never written to once sent. Its
// size counts: there may be millions.
type payload struct {
	id    string
	body  []byte
	more  *extra
	count uint8 // of attrs
	// encoded says that body and attributes are in the form for the wire, as they
	// contain metadata of the library.
	encoded bool
	attrs   [3]attribute
}

type attribute struct{ name, value string }

// extra is what few messages have.
type extra struct {
	attrs   []attribute
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

// store copies a message that PrepareEach has accepted, whose attributes it has
// added already.
func (p *payload) store(prepared *queue.Prepared, attrBytes int, w *queue.Wire, from *bodies) (size int, err error) {
	m := prepared.Message
	if m.HasMetadata() {
		// The same way as on a real wire: what doesn't fit is cut here too.
		enc, err := w.Encode(m)
		if err != nil {
			return 0, err
		}
		*p = payload{encoded: true}
		if enc.Types != nil {
			p.extra().types = enc.Types
		}
		size = p.keep(enc.Body, enc.Attributes, from)
	} else {
		p.id, p.body = m.ID, from.copyOf(m.Body)
		size = len(m.Body) + attrBytes
	}
	if len(prepared.Options) > 0 {
		p.extra().options = append([]queue.MessageOption(nil), prepared.Options...)
	}
	return size, nil
}

// keep copies body and attributes and returns their size.
func (p *payload) keep(body []byte, attrs map[string]string, from *bodies) (size int) {
	p.body = from.copyOf(body)
	size = len(body)
	for k, v := range attrs {
		p.add(k, v)
		size += len(k) + len(v)
	}
	return size
}

// add keeps an attribute.
func (p *payload) add(name, value string) {
	if int(p.count) < len(p.attrs) {
		p.attrs[p.count] = attribute{name, value}
		p.count++
		return
	}
	x := p.extra()
	x.attrs = append(x.attrs, attribute{name, value})
}

// clone is bytes.Clone without capacity to spare, and without clearing memory
// that's written to at once.
func clone(b []byte) []byte {
	if b == nil {
		return nil
	}
	c := make([]byte, len(b))
	copy(c, b)
	return c
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
	n := int(p.count)
	var more []attribute
	if p.more != nil {
		more = p.more.attrs
	}
	if n > 0 {
		attrs = make(map[string]string, n+len(more))
		for _, a := range p.attrs[:n] {
			attrs[a.name] = a.value
		}
		for _, a := range more {
			attrs[a.name] = a.value
		}
	}
	return clone(p.body), attrs
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
