package sqstest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/anyqueue/anyqueue/internal/broker"
)

// Server is an SQS server in the process. It has no queues at first, and no
// goroutines while nobody calls it. All methods may be called concurrently.
type Server struct {
	opts  Options
	err   error // of the options
	group *broker.Group

	latency atomic.Int64 // see SetLatency
	clock   atomic.Int64 // see SetClock
	salt    uint32       // marks this server's receipt handles
	number  atomic.Uint64
	counts  counters
	faults  atomic.Pointer[faults]

	mu      sync.RWMutex
	queues  map[string]*core
	deleted map[string]time.Time // until when a name may not be used again
	tasks   []*moveTask
	close   []func()

	life   sync.RWMutex // held for reading to begin a call
	closed chan struct{}
	calls  sync.WaitGroup
}

// New returns a Server without queues. Nil options are the defaults; options
// that can't be meant make Start, and every call, fail.
//
// A Server that's made inside a testing/synctest bubble lives by the bubble's
// clock: a visibility timeout of 12 hours passes at once when nobody has anything
// else to do. Use Client, Config or Pipe there, and Close it before the bubble
// ends. Using it on the other side of the bubble's border fails.
func New(opts *Options) *Server {
	s := &Server{
		group:  broker.NewGroup(),
		queues: map[string]*core{}, deleted: map[string]time.Time{},
		closed: make(chan struct{}),
	}
	if opts != nil {
		s.opts = *opts
	}
	s.opts, s.err = s.opts.validate()
	s.latency.Store(int64(s.opts.Latency))
	s.salt = rand.Uint32() //nolint:gosec // it's no secret
	return s
}

// SetLatency changes Options.Latency for the calls that come.
func (s *Server) SetLatency(d time.Duration) { s.latency.Store(int64(max(d, 0))) }

// SetClock sets the clock on the server's wall forward by d, or back if it's
// negative: its answers' Date and its timestamps differ from the caller's clock
// by that much, and it refuses requests whose signature is more than 15 minutes
// off. Timeouts and delays aren't affected.
func (s *Server) SetClock(d time.Duration) { s.clock.Store(int64(d)) }

// wall is the time on the server's wall.
func (s *Server) wall() time.Time { return time.Now().Add(time.Duration(s.clock.Load())) }

// Close lets the calls in flight end, long polls at once and with nothing, and
// returns when they have; what a Fault has slowed down is cut. Calls that come
// later find nobody.
func (s *Server) Close() {
	s.life.Lock()
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	s.life.Unlock()
	s.mu.Lock()
	for _, q := range s.queues {
		q.end()
	}
	ends := s.close
	s.close = nil
	s.mu.Unlock()
	s.calls.Wait()
	for _, end := range ends {
		end()
	}
}

// begin reports why the server doesn't take calls, if so; done tells of the end of
// what has begun.
func (s *Server) begin() (done func(), err error) {
	// First of all: what follows mustn't be used across a bubble's border.
	if _, err := s.group.Clock.Now(); err != nil {
		return nil, fmt.Errorf("sqstest: %w", err)
	}
	s.life.RLock()
	defer s.life.RUnlock()
	if s.isClosed() {
		return nil, &net.OpError{Op: "dial", Net: "sqstest", Err: syscall.ECONNREFUSED}
	}
	s.calls.Add(1)
	return s.calls.Done, nil
}

func (s *Server) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// request is a call, however it came.
type request struct {
	target string
	host   string
	date   string // of the signature: X-Amz-Date
	body   []byte
}

// response is what's answered to it; cut says that it isn't.
type response struct {
	status     int
	queryError string
	body       []byte
	cut        bool
}

// call is a request that's being served.
type call struct {
	*Server
	*request
	action  string
	entries int // see Server.Entries
	hits    hits
}

// An action serves a call: it decodes its parameters and returns the JSON of the
// answer.
type action func(ctx context.Context, c *call) ([]byte, *apiError)

// actionOf returns what serves an action, or nil.
func actionOf(name string) action {
	switch name {
	case "SendMessage":
		return sendMessage
	case "SendMessageBatch":
		return sendMessageBatch
	case "ReceiveMessage":
		return receiveMessage
	case "DeleteMessage":
		return deleteMessage
	case "DeleteMessageBatch":
		return deleteMessageBatch
	case "ChangeMessageVisibility":
		return changeVisibility
	case "ChangeMessageVisibilityBatch":
		return changeVisibilityBatch
	case "CreateQueue":
		return createQueue
	case "DeleteQueue":
		return deleteQueue
	case "GetQueueUrl":
		return getQueueURL
	case "GetQueueAttributes":
		return getQueueAttributes
	case "SetQueueAttributes":
		return setQueueAttributes
	case "ListQueues":
		return listQueues
	case "PurgeQueue":
		return purgeQueue
	case "ListDeadLetterSourceQueues":
		return listSources
	case "TagQueue":
		return tagQueue
	case "UntagQueue":
		return untagQueue
	case "ListQueueTags":
		return listTags
	case "StartMessageMoveTask":
		return startMoveTask
	case "ListMessageMoveTasks":
		return listMoveTasks
	case "CancelMessageMoveTask":
		return cancelMoveTask
	}
	return nil
}

const targetPrefix = "AmazonSQS."

// serve serves one request, or returns cut. ctx ends when the caller has gone.
func (s *Server) serve(ctx context.Context, r *request) *response {
	name, known := strings.CutPrefix(r.target, targetPrefix)
	act := actionOf(name)
	c := &call{Server: s, request: r, action: name}
	if err := s.refuse(c); err != nil {
		return err.answer()
	}
	half := time.Duration(s.latency.Load()) / 2
	s.pause(half)
	defer s.pause(half)
	if !known || act == nil {
		return fail(unknownOperation, "sqstest doesn't know the operation %q; it speaks the AWS JSON protocol only", r.target).answer()
	}
	return s.work(ctx, c, act)
}

// work does a call, with what the faults make of it.
func (s *Server) work(ctx context.Context, c *call, act action) *response {
	s.counts.call(c.action)
	c.hits = s.faults.Load().hit(c)
	if d := c.hits.slow; d > 0 && !s.pause(d) {
		return &response{cut: true}
	}
	if c.hits.before != nil {
		return c.hits.before
	}
	body, err := act(ctx, c)
	s.counts.done(c.action, c.entries)
	if c.hits.after != nil {
		return c.hits.after
	}
	if err != nil {
		return err.answer()
	}
	return &response{status: http.StatusOK, body: body}
}

// refuse says why no call can be served, if so.
func (s *Server) refuse(c *call) *apiError {
	if s.err != nil {
		return fail(invalidParameter, "%v", s.err)
	}
	if c.date == "" {
		return nil // not signed: nobody could tell when
	}
	const format, tolerance = "20060102T150405Z", 15 * time.Minute
	at, err := time.Parse(format, c.date)
	if err != nil {
		return fail(signatureInvalid, "Date must be in ISO-8601 'basic format'. Got '%s'.", c.date)
	}
	now := s.wall().UTC()
	switch {
	case now.Sub(at) > tolerance:
		return fail(signatureInvalid, "Signature expired: %s is now earlier than %s (%s - 15 min.)",
			c.date, now.Add(-tolerance).Format(format), now.Format(format))
	case at.Sub(now) > tolerance:
		return fail(signatureInvalid, "Signature not yet current: %s is still later than %s (%s + 15 min.)",
			c.date, now.Add(tolerance).Format(format), now.Format(format))
	}
	return nil
}

// pause waits, and returns false if the server was closed before.
func (s *Server) pause(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.closed:
		return false
	}
}

// queueAt finds the queue of a URL, of which only the end matters.
func (s *Server) queueAt(url string) (*core, *apiError) {
	if url == "" {
		return nil, fail(missingParameter, "The request must contain the parameter QueueUrl.")
	}
	path := url
	if _, rest, ok := strings.Cut(url, "://"); ok {
		_, path, _ = strings.Cut(rest, "/")
	}
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if len(parts) != 2 {
		return nil, fail(invalidAddress, "The address %s is not valid for this endpoint.", url)
	}
	if parts[0] != s.opts.Account {
		return nil, noSuchQueue()
	}
	return s.queueNamed(parts[1])
}

func (s *Server) queueNamed(name string) (*core, *apiError) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if q := s.queues[name]; q != nil {
		return q, nil
	}
	return nil, noSuchQueue()
}

func noSuchQueue() *apiError { return fail(queueDoesNotExist, "The specified queue does not exist.") }

func (s *Server) url(host, name string) string {
	return fmt.Sprintf("http://%s/%s/%s", host, s.opts.Account, name)
}

func (s *Server) arn(name string) string {
	return "arn:aws:sqs:" + s.opts.Region + ":" + s.opts.Account + ":" + name
}

// queueOf finds the queue of an ARN.
func (s *Server) queueOf(arn string) *core {
	name, ok := strings.CutPrefix(arn, s.arn(""))
	if !ok {
		return nil
	}
	q, err := s.queueNamed(name)
	if err != nil {
		return nil
	}
	return q
}

// now is the broker's time. begin has found that there is one.
func (s *Server) now() broker.Instant {
	now, err := s.group.Clock.Now()
	if err != nil {
		return 0
	}
	return now
}
