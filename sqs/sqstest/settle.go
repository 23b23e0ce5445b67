package sqstest

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"time"

	"github.com/anyqueue/anyqueue/internal/broker"
)

// handle is a receipt handle: it says which message it is, and which delivery of
// it.
type handle struct {
	queue    uint32
	message  uint64
	gen      uint32
	receives uint32
	received broker.Instant
}

const handleBytes = 4 + 8 + 4 + 4 + 8 + 4

func (c *call) handle(q *core, l *broker.Lease[*message], now broker.Instant) string {
	b := make([]byte, 0, handleBytes)
	b = binary.BigEndian.AppendUint32(b, q.number)
	b = binary.BigEndian.AppendUint64(b, l.Item.Payload.number)
	b = binary.BigEndian.AppendUint32(b, l.Gen)
	b = binary.BigEndian.AppendUint32(b, uint32(l.Receives)) //nolint:gosec // it counts up from 1
	b = binary.BigEndian.AppendUint64(b, uint64(now))        //nolint:gosec // it's positive
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b)^c.salt)
	return base64.StdEncoding.EncodeToString(b)
}

// parseHandle reads a handle that this server made for the queue.
func (c *call) parseHandle(q *core, s string) (handle, *apiError) {
	if s == "" {
		return handle{}, fail(missingParameter, "The request must contain the parameter ReceiptHandle.")
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(b) != handleBytes || binary.BigEndian.Uint32(b[handleBytes-4:]) != crc32.ChecksumIEEE(b[:handleBytes-4])^c.salt {
		return handle{}, badHandle(s)
	}
	h := handle{
		queue: binary.BigEndian.Uint32(b), message: binary.BigEndian.Uint64(b[4:]), gen: binary.BigEndian.Uint32(b[12:]),
		receives: binary.BigEndian.Uint32(b[16:]), received: broker.Instant(binary.BigEndian.Uint64(b[20:])), //nolint:gosec // as it was made
	}
	if h.queue != q.number {
		return handle{}, badHandle(s)
	}
	return h, nil
}

func badHandle(s string) *apiError {
	return fail(receiptInvalid, "The input receipt handle \"%s\" is not a valid receipt handle.", s)
}

// settleEntry is one message of a request that deletes or changes.
type settleEntry struct {
	Id                string //nolint:revive // as it's called
	ReceiptHandle     string
	VisibilityTimeout *int
}

func deleteMessage(_ context.Context, c *call) ([]byte, *apiError) {
	return c.settleOne(false, (*call).delete)
}

func deleteMessageBatch(_ context.Context, c *call) ([]byte, *apiError) {
	return c.settleAll(false, (*call).delete)
}

func changeVisibility(_ context.Context, c *call) ([]byte, *apiError) {
	return c.settleOne(true, (*call).changeOne)
}

func changeVisibilityBatch(_ context.Context, c *call) ([]byte, *apiError) {
	return c.settleAll(true, (*call).changeOne)
}

// settler deletes or changes one message.
type settler func(*call, *core, handle, *settleEntry) *apiError

// settleOne and settleAll serve the actions; visibility says whether they have
// that parameter.
func (c *call) settleOne(visibility bool, f settler) ([]byte, *apiError) {
	var url string
	var e settleEntry
	if err := scan(c.body, func(d *scanner, name string) {
		switch name {
		case "QueueUrl":
			url = d.string()
		case "Id":
			d.unknown(name)
		default:
			e.read(d, name, visibility)
		}
	}); err != nil {
		return nil, err
	}
	q, err := c.queueAt(url)
	if err != nil {
		return nil, err
	}
	if err := c.settle(q, &e, f); err != nil {
		return nil, err.apiError
	}
	c.entries = 1
	return []byte("{}"), nil
}

func (c *call) settleAll(visibility bool, f settler) ([]byte, *apiError) {
	q, es, err := batchOf(c,
		func(e *settleEntry, d *scanner, name string) { e.read(d, name, visibility) },
		func(e *settleEntry) *string { return &e.Id })
	if err != nil {
		return nil, err
	}
	errs := make([]*entryError, len(es))
	for i := range es {
		errs[i] = c.settle(q, &es[i], f)
	}
	return c.batchAnswer(len(es), func(i int) (string, *entryError) { return es[i].Id, errs[i] }, func(*writer, int) {}), nil
}

func (c *call) settle(q *core, e *settleEntry, f settler) *entryError {
	h, err := c.parseHandle(q, e.ReceiptHandle)
	if err != nil {
		return &entryError{err, true}
	}
	if len(c.hits.entries) > 0 {
		body := ""
		if it := q.item(h.message); it != nil {
			body = it.Payload.body
		}
		if err := c.hits.entry(body); err != nil {
			return err
		}
	}
	if err := f(c, q, h, e); err != nil {
		return &entryError{err, true}
	}
	return nil
}

func (c *call) delete(q *core, h handle, e *settleEntry) *apiError {
	it := q.item(h.message)
	if it == nil {
		return nil // it's gone; that's what was wanted
	}
	ops := [1]broker.Op[*message]{{Item: it, Gen: h.gen, Kind: broker.Ack}}
	now := c.now()
	q.q.Settle(now, false, ops[:])
	if ops[0].Err == nil || !q.fifo && q.q.AckLate(now, it, int(h.receives)) {
		q.forget(h.message)
		return nil
	}
	if q.fifo && q.q.State(now, it) != broker.Gone {
		return fail(invalidParameter, "Value %s for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.", e.ReceiptHandle)
	}
	return nil // a standard queue says yes and does nothing
}

func (c *call) changeOne(q *core, h handle, e *settleEntry) *apiError {
	if e.VisibilityTimeout == nil {
		return fail(missingParameter, "The request must contain the parameter VisibilityTimeout.")
	}
	if err := checkVisibility(*e.VisibilityTimeout); err != nil {
		return err
	}
	it := q.item(h.message)
	now := c.now()
	if it == nil || q.q.State(now, it) == broker.Gone {
		return fail(invalidParameter, "Value %s for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not available for visibility timeout change.", e.ReceiptHandle)
	}
	d := time.Duration(*e.VisibilityTimeout) * time.Second
	if now.Add(d) > h.received.Add(maxVisibility) {
		return fail(invalidParameter, "Value %d for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for the message is beyond the limit [43200 seconds].", *e.VisibilityTimeout)
	}
	op := broker.Op[*message]{Item: it, Gen: h.gen, Kind: broker.Extend, For: d}
	if d == 0 {
		op.Kind = broker.Release
	}
	ops := [1]broker.Op[*message]{op}
	q.q.Settle(now, false, ops[:])
	if ops[0].Err != nil {
		return fail(notInflight, "The message referred to isn't in flight.")
	}
	return nil
}

// batchAnswer answers to a batch of n entries, each of which has failed or not.
func (c *call) batchAnswer(n int, entry func(int) (id string, err *entryError), more func(*writer, int)) []byte {
	failed := 0
	w := &writer{}
	w.object("", func() {
		w.array("Successful", func() {
			for i := range n {
				id, err := entry(i)
				if err != nil {
					failed++
					continue
				}
				w.object("", func() {
					w.string("Id", id)
					more(w, i)
				})
			}
		})
		if failed == 0 {
			return
		}
		w.array("Failed", func() {
			for i := range n {
				id, err := entry(i)
				if err == nil {
					continue
				}
				w.object("", func() {
					w.string("Id", id)
					w.bool("SenderFault", err.sender)
					w.string("Code", err.queryCode())
					w.string("Message", err.message)
				})
			}
		})
	})
	c.entries = n - failed
	return w.b
}
