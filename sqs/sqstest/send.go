package sqstest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"github.com/anyqueue/anyqueue/internal/broker"
)

// attributeValue is an attribute as it's sent.
type attributeValue struct {
	DataType         string
	StringValue      *string
	BinaryValue      []byte
	StringListValues []string
	BinaryListValues [][]byte
}

// sendEntry is one message of a request.
type sendEntry struct {
	Id                      *string //nolint:revive // as it's called
	MessageBody             string
	DelaySeconds            *int
	MessageAttributes       map[string]attributeValue
	MessageSystemAttributes map[string]attributeValue
	MessageDeduplicationId  *string //nolint:revive // as it's called
	MessageGroupId          *string //nolint:revive // as it's called
}

// outgoing is a message that was checked, and what became of it.
type outgoing struct {
	m     *message
	delay time.Duration
	size  int
	err   *entryError

	id  string // of the message that's in the queue: of a repeat, the first one's
	seq uint64
}

// entryError is the failure of one entry of a batch.
type entryError struct {
	*apiError
	sender bool
}

func sendMessage(_ context.Context, c *call) ([]byte, *apiError) {
	var url string
	var in sendEntry
	if err := scan(c.body, func(d *scanner, name string) {
		switch name {
		case "QueueUrl":
			url = d.string()
		case "Id":
			d.unknown(name)
		default:
			in.read(d, name)
		}
	}); err != nil {
		return nil, err
	}
	q, err := c.queueAt(url)
	if err != nil {
		return nil, err
	}
	set := q.settings.Load()
	if err := checkFIFO(q, set, &in, missingParameter); err != nil {
		return nil, err
	}
	out, err := c.compose(q, set, &in)
	if err != nil {
		return nil, err
	}
	if out.size > set.maxBytes {
		return nil, fail(invalidParameter, "One or more parameters are invalid. Reason: Message must be shorter than %d bytes.", set.maxBytes)
	}
	if e := c.hits.entry(in.MessageBody); e != nil {
		return nil, e.apiError
	}
	all := []outgoing{*out}
	c.send(q, set, all)
	c.entries = 1
	w := &writer{}
	w.object("", func() { all[0].write(w) })
	return w.b, nil
}

func sendMessageBatch(_ context.Context, c *call) ([]byte, *apiError) {
	q, entries, err := batchOf(c, (*sendEntry).read, func(e *sendEntry) *string { return e.Id })
	if err != nil {
		return nil, err
	}
	set := q.settings.Load()
	total := 0
	all := make([]outgoing, len(entries))
	for i := range entries {
		// A missing group or deduplication id fails the whole call; all else only
		// its entry.
		if err := checkFIFO(q, set, &entries[i], invalidParameter); err != nil {
			return nil, err
		}
		total += sizeOf(&entries[i])
	}
	if total > maxBatch {
		return nil, fail(batchTooLong, "Batch requests cannot be longer than %d bytes. You have sent %d bytes.", maxBatch, total)
	}
	for i := range entries {
		e := &entries[i]
		out, err := c.compose(q, set, e)
		switch {
		case err != nil:
			all[i].err = &entryError{err, true}
			continue
		case out.size > set.maxBytes:
			all[i].err = &entryError{fail(invalidParameter, "One or more parameters cannot be validated. Reason: Message must be shorter than %d bytes.", set.maxBytes), true}
			continue
		}
		all[i] = *out
		all[i].err = c.hits.entry(e.MessageBody)
	}
	c.send(q, set, all)
	return c.batchAnswer(len(all), func(i int) (string, *entryError) { return *entries[i].Id, all[i].err },
		func(w *writer, i int) { all[i].write(w) }), nil
}

// compose checks an entry and makes the message.
func (c *call) compose(q *core, set *settings, e *sendEntry) (*outgoing, *apiError) {
	if err := checkBody(e.MessageBody); err != nil {
		return nil, err
	}
	attrs, err := parseAttributes(e.MessageAttributes)
	if err != nil {
		return nil, err
	}
	trace, err := parseTrace(e.MessageSystemAttributes)
	if err != nil {
		return nil, err
	}
	m := &message{
		number: c.number.Add(1), id: newID(), body: e.MessageBody, attrs: attrs, trace: trace, origin: q,
		md5Body: md5Of(e.MessageBody), md5Attrs: md5OfAttributes(attrs),
	}
	out := &outgoing{m: m, delay: set.delay, size: sizeOf(e), id: m.id}
	if e.MessageGroupId != nil {
		m.group = *e.MessageGroupId
	}
	if e.MessageDeduplicationId != nil {
		m.dedup = *e.MessageDeduplicationId
	} else if q.fifo {
		sum := sha256.Sum256([]byte(m.body))
		m.dedup = hex.EncodeToString(sum[:])
	}
	if d := e.DelaySeconds; d != nil {
		switch {
		case q.fifo && *d != 0:
			return nil, fail(invalidParameter, "Value %d for parameter DelaySeconds is invalid. Reason: The request include parameter that is not valid for this queue type.", *d)
		case *d < 0 || *d > 900:
			return nil, fail(invalidParameter, "Value %d for parameter DelaySeconds is invalid. Reason: DelaySeconds must be >= 0 and <= 900.", *d)
		case !q.fifo: // a FIFO queue takes 0 for its own delay
			out.delay = time.Duration(*d) * time.Second
		}
	}
	return out, nil
}

// send puts what has no error into the queue.
func (c *call) send(q *core, set *settings, all []outgoing) {
	now := c.now()
	if !q.fifo {
		es := make([]broker.Entry[*message], 0, len(all))
		for i := range all {
			if all[i].err == nil {
				if all[i].m.group != "" && !q.tenants.Load() {
					q.tenants.Store(true)
				}
				es = append(es, entryOf(&all[i]))
			}
		}
		q.q.Send(now, false, es)
		return
	}
	// Numbers are given, and repeats found, in the order of the queue.
	q.mu.Lock()
	defer q.mu.Unlock()
	at := time.Now()
	for i := range all {
		o := &all[i]
		if o.err != nil {
			continue
		}
		key := o.m.dedup
		if set.dedupByGroup {
			key = o.m.group + "\x00" + key
		}
		if first, ok := q.repeats.find(key, at); ok {
			o.id, o.seq = first.id, first.seq
			continue
		}
		seqs := [1]uint64{}
		q.q.SendNumbered(now, []broker.Entry[*message]{entryOf(o)}, seqs[:])
		o.seq = sequence(seqs[0])
		q.repeats.add(sent{key: key, until: at.Add(dedupWindow), id: o.m.id, seq: o.seq})
	}
}

func entryOf(o *outgoing) broker.Entry[*message] {
	e := broker.Entry[*message]{Item: &broker.Item[*message]{Payload: o.m}, Delay: o.delay, Size: o.size, At: time.Now()}
	if o.m.origin.fifo {
		e.Key = o.m.group
	}
	return e
}

// write writes what's answered about a message that was sent.
func (o *outgoing) write(w *writer) {
	w.string("MessageId", o.id)
	w.string("MD5OfMessageBody", o.m.md5Body)
	w.optional("MD5OfMessageAttributes", o.m.md5Attrs)
	if o.m.trace != "" {
		w.string("MD5OfMessageSystemAttributes", md5OfAttributes([]attribute{{name: traceHeader, dataType: "String", value: o.m.trace}}))
	}
	if o.seq != 0 {
		w.string("SequenceNumber", itoa(o.seq))
	}
}

// parseAttributes checks the attributes of a message, and sorts them.
func parseAttributes(in map[string]attributeValue) ([]attribute, *apiError) {
	if len(in) == 0 {
		return nil, nil
	}
	if len(in) > maxAttributes {
		return nil, fail(invalidParameter, "Number of message attributes [%d] exceeds the allowed maximum [%d].", len(in), maxAttributes)
	}
	out := make([]attribute, 0, len(in))
	for name, v := range in {
		a, err := parseAttribute(name, &v)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b attribute) int { return cmp.Compare(a.name, b.name) })
	return out, nil
}
