package sqstest

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/anyqueue/anyqueue/internal/broker"
)

type receiveInput struct {
	QueueUrl                    string //nolint:revive // as it's called
	AttributeNames              []string
	MessageSystemAttributeNames []string
	MessageAttributeNames       []string
	MaxNumberOfMessages         *int
	VisibilityTimeout           *int
	WaitTimeSeconds             *int
	ReceiveRequestAttemptId     *string //nolint:revive // as it's called
}

func receiveMessage(ctx context.Context, c *call) ([]byte, *apiError) {
	var in receiveInput
	if err := scan(c.body, func(d *scanner, name string) { in.read(d, name) }); err != nil {
		return nil, err
	}
	q, err := c.queueAt(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	set := q.settings.Load()
	r := broker.Request{Max: 1, Lease: set.visibility, Wait: set.wait, Stop: q.stop}
	if n := in.MaxNumberOfMessages; n != nil {
		if r.Max = *n; *n < 1 || *n > maxEntries {
			return nil, fail(invalidParameter, "Value %d for parameter MaxNumberOfMessages is invalid. Reason: Must be between 1 and 10, if provided.", *n)
		}
	}
	if n := in.WaitTimeSeconds; n != nil {
		if r.Wait = time.Duration(*n) * time.Second; *n < 0 || *n > 20 {
			return nil, fail(invalidParameter, "Value %d for parameter WaitTimeSeconds is invalid. Reason: Must be >= 0 and <= 20, if provided.", *n)
		}
	}
	if n := in.VisibilityTimeout; n != nil {
		if err := checkVisibility(*n); err != nil {
			return nil, err
		}
		r.Lease = time.Duration(*n) * time.Second
	}
	sel, err := selectionOf(&in)
	if err != nil {
		return nil, err
	}
	attempt := ""
	if id := in.ReceiveRequestAttemptId; id != nil {
		if attempt = *id; !isKey(attempt) {
			return nil, fail(invalidParameter, "Value %s for parameter ReceiveRequestAttemptId is invalid. Reason: ReceiveRequestAttemptId can only include alphanumeric and punctuation characters. 1 to 128 in length.", attempt)
		}
		if !q.fifo {
			return nil, fail(invalidParameter, "Value %s for parameter ReceiveRequestAttemptId is invalid. Reason: The request includes a parameter that is not valid for this queue type.", attempt)
		}
	}
	if attempt != "" {
		if again, at := c.repeatAttempt(q, attempt, r.Lease); again != nil {
			return c.deliver(q, again, &sel, at), nil
		}
	}
	got, err := c.receive(ctx, q, r)
	if err != nil || got == nil {
		return []byte("{}"), err
	}
	defer q.q.Recycle(got)
	now := c.now()
	if attempt != "" {
		q.rememberAttempt(attempt, got.Leases, now)
	}
	return c.deliver(q, got.Leases, &sel, now), nil
}

// receive waits for messages, and returns nil when there are none.
func (c *call) receive(ctx context.Context, q *core, r broker.Request) (*broker.Batch[*message], *apiError) {
	if !c.opts.EndCutPolls {
		ctx = context.WithoutCancel(ctx)
	}
	if !q.fifo {
		q.beFair(c.now())
	}
	short := r.Wait == 0
	if short {
		r.Wait = -1
	}
	// Any other error says that the caller or the server has gone: nobody is left
	// to be told.
	got, err := q.q.Receive(ctx, r)
	if errors.Is(err, broker.ErrStopped) && !c.isClosed() {
		return nil, noSuchQueue() // it was deleted meanwhile
	}
	if got == nil && err == nil && short && !q.fifo {
		if _, leased := q.q.Totals(c.now()); leased >= c.opts.MaxInFlight {
			return nil, fail(overLimit, "Too many messages in flight: %d.", leased)
		}
	}
	return got, nil
}

func checkVisibility(seconds int) *apiError {
	if seconds < 0 || seconds > int(maxVisibility/time.Second) {
		return fail(invalidParameter, "Value %d for parameter VisibilityTimeout is invalid. Reason: Must be >= 0 and <= 43200, if provided.", seconds)
	}
	return nil
}

// selection is which attributes a receiver wants.
type selection struct {
	system   []string
	all      bool
	names    []string
	prefixes []string
}

// systemAttributes are those of messages.
func systemAttributes() []string {
	return []string{
		"All", "SenderId", "SentTimestamp", "ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp", "SequenceNumber",
		"MessageDeduplicationId", "MessageGroupId", traceHeader, "DeadLetterQueueSourceArn",
	}
}

func selectionOf(in *receiveInput) (selection, *apiError) {
	s := selection{system: slices.Concat(in.AttributeNames, in.MessageSystemAttributeNames)}
	for _, name := range s.system {
		if !slices.Contains(systemAttributes(), name) {
			return s, unknownAttribute(name)
		}
	}
	for _, name := range in.MessageAttributeNames {
		prefix, wildcard := strings.CutSuffix(name, ".*")
		switch {
		case name == "All" || name == ".*":
			s.all = true
		case wildcard:
			s.prefixes = append(s.prefixes, prefix)
		default:
			s.names = append(s.names, name)
		}
	}
	return s, nil
}

func (s *selection) wantsSystem(name string) bool {
	return slices.Contains(s.system, "All") || slices.Contains(s.system, name)
}

// of returns the attributes that are wanted, and their checksum.
func (s *selection) of(m *message) ([]attribute, string) {
	if s.all {
		return m.attrs, m.md5Attrs
	}
	if s.names == nil && s.prefixes == nil {
		return nil, ""
	}
	var out []attribute
	for _, a := range m.attrs {
		if slices.Contains(s.names, a.name) || slices.ContainsFunc(s.prefixes, func(p string) bool { return strings.HasPrefix(a.name, p) }) {
			out = append(out, a)
		}
	}
	return out, md5OfAttributes(out)
}

// deliver answers with messages that were received at a time.
func (c *call) deliver(q *core, leases []broker.Lease[*message], sel *selection, at broker.Instant) []byte {
	q.keep(leases, c.now())
	c.entries = len(leases)
	size := 0
	for _, l := range leases {
		size += len(l.Item.Payload.body) + 1024
	}
	w := &writer{b: make([]byte, 0, size)}
	w.object("", func() {
		w.array("Messages", func() {
			for i := range leases {
				w.object("", func() { c.writeMessage(w, q, &leases[i], sel, at) })
			}
		})
	})
	return w.b
}

func (c *call) writeMessage(w *writer, q *core, l *broker.Lease[*message], sel *selection, at broker.Instant) {
	m := l.Item.Payload
	first := c.wall().UnixMilli()
	if !m.first.CompareAndSwap(0, first) {
		first = m.first.Load()
	}
	w.string("MessageId", m.id)
	w.string("ReceiptHandle", c.handle(q, l, at))
	w.string("MD5OfBody", m.md5Body)
	w.string("Body", m.body)
	attrs, sum := sel.of(m)
	if len(attrs) > 0 {
		w.string("MD5OfMessageAttributes", sum)
		w.object("MessageAttributes", func() {
			for _, a := range attrs {
				w.object(a.name, func() { // its name needs no escaping
					if a.binary {
						w.binary("BinaryValue", []byte(a.value))
					} else {
						w.string("StringValue", a.value)
					}
					w.string("DataType", a.dataType)
				})
			}
		})
	}
	if len(sel.system) == 0 {
		return
	}
	skew := time.Duration(c.clock.Load())
	source := ""
	if m.origin != q {
		source = m.origin.arn
	}
	seq := ""
	if q.fifo {
		seq = itoa(sequence(l.Seq))
	}
	w.object("Attributes", func() {
		for _, a := range [...]struct{ name, value string }{
			{"SenderId", senderID},
			{"SentTimestamp", strconv.FormatInt(l.Enqueued.Add(skew).UnixMilli(), 10)},
			{"ApproximateReceiveCount", strconv.Itoa(l.Receives)},
			{"ApproximateFirstReceiveTimestamp", strconv.FormatInt(first, 10)},
			{"SequenceNumber", seq},
			{"MessageDeduplicationId", m.dedup},
			{"MessageGroupId", m.group},
			{traceHeader, m.trace},
			{"DeadLetterQueueSourceArn", source},
		} {
			if a.value != "" && sel.wantsSystem(a.name) {
				w.string(a.name, a.value)
			}
		}
	})
}

// senderID is who has sent every message: nobody has to be known here.
const senderID = "AIDASQSTESTSQSTESTSQS"
