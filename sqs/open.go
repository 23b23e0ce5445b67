package sqs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/anyqueue/anyqueue/internal/batcher"
	"github.com/anyqueue/anyqueue/internal/remote"
	"github.com/anyqueue/anyqueue/queue"
)

const fifoSuffix = ".fifo"

// Open opens a queue that exists. It reads the queue's settings; where that isn't
// permitted it assumes SQS's defaults, logs a warning and names them in
// Capabilities.Assumed.
func (b *Backend) Open(ctx context.Context, name string, opts *queue.OpenOptions) (queue.Queue, error) {
	if opts == nil {
		opts = &queue.OpenOptions{}
	}
	q, err := b.open(ctx, name, opts)
	if err != nil {
		return nil, fmt.Errorf("sqs: open %s: %w", name, err)
	}
	return q, nil
}

func (b *Backend) open(ctx context.Context, name string, opts *queue.OpenOptions) (*handle, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	if opts.Lease != 0 && (opts.Lease < time.Second || opts.Lease > maxVisibility) {
		return nil, &queue.InvalidError{Field: "Lease", Reason: fmt.Sprintf("%v isn't 1 s to 12 h", opts.Lease)}
	}
	at, err := b.locate(name, opts)
	if err != nil {
		return nil, err
	}
	if at.url == "" {
		out, err := b.client.GetQueueUrl(ctx, &awssqs.GetQueueUrlInput{QueueName: &at.name, QueueOwnerAWSAccountId: at.account})
		if err != nil {
			if err = classify(err); errors.Is(err, queue.ErrQueueNotFound) {
				err = fmt.Errorf("there's no queue %s (Ensure makes queues): %w", at.name, err)
			}
			return nil, err
		}
		at.url = deref(out.QueueUrl)
	}
	s, err := b.settings(ctx, at.url)
	if err != nil {
		return nil, err
	}
	h := &handle{client: b.client, name: name, url: at.url, fifo: opts.Ordered, wait: b.opts.Wait}
	h.polls.Poll, h.polls.GiveBack = h.poll, h.giveBack
	h.once = onceBy(b.client)
	h.out = batcher.Batcher[outgoing]{
		MaxItems: maxEntries, MaxBytes: maxRequest, MaxCalls: maxSends, MaxHeld: maxHeld, MaxHeldBytes: maxHeldBytes,
		Timeout: queue.DefaultPublishTimeout, Send: h.send,
	}
	if opts.Lease > 0 {
		s.visibility = opts.Lease
	}
	h.visibility = seconds(s.visibility) // always asked for, so that it's true
	s.visibility = time.Duration(h.visibility) * time.Second
	h.caps = capabilities(name, at.url, opts.Ordered, s)
	log := opts.Logger
	if log == nil {
		log = slog.Default()
	}
	if s.delay > 0 {
		log.Warn("the queue has DelaySeconds: every message that has no delay is delayed by them", "queue", name, "delay", s.delay)
	}
	if len(s.assumed) > 0 {
		log.Warn("settings of the queue can't be read, assuming the defaults", "queue", name, "assumed", s.assumed, "err", s.err)
	}
	return h, nil
}

// place is where a queue is.
type place struct {
	url     string // empty: to be asked for
	name    string
	account *string
}

// locate works out where the queue is from its name and the explicit address.
func (b *Backend) locate(name string, opts *queue.OpenOptions) (place, error) {
	if opts.Address == "" {
		if err := queue.CheckName(name); err != nil {
			return place{}, err
		}
		if opts.Ordered {
			name += fifoSuffix
		}
		return place{name: name}, nil
	}
	invalid := func(reason string) (place, error) {
		return place{}, &queue.InvalidError{Field: "Address", Reason: fmt.Sprintf("%q %s", opts.Address, reason)}
	}
	var p place
	if arn, ok := strings.CutPrefix(opts.Address, "arn:"); ok {
		parts := strings.Split(arn, ":") // partition, service, region, account, name
		if len(parts) != 5 || parts[1] != "sqs" || parts[4] == "" {
			return invalid("isn't the ARN of an SQS queue")
		}
		if region := b.client.Options().Region; parts[2] != region {
			return invalid("is in another region than the client, which is for " + region)
		}
		p = place{name: parts[4], account: &parts[3]}
	} else {
		u, err := url.Parse(opts.Address)
		if err != nil || u.Host == "" {
			return invalid("is neither a queue URL nor an ARN")
		}
		// The client sends every request to its own region, whatever the URL says.
		if host := strings.Split(u.Hostname(), "."); len(host) >= 4 && host[0] == "sqs" && strings.HasPrefix(host[2], "amazonaws") {
			if region := b.client.Options().Region; host[1] != region {
				return invalid("is in another region than the client, which is for " + region)
			}
		}
		p = place{url: opts.Address, name: u.Path[strings.LastIndexByte(u.Path, '/')+1:]}
	}
	if strings.HasSuffix(p.name, fifoSuffix) != opts.Ordered {
		return invalid("must end in .fifo if, and only if, Ordered is set")
	}
	return p, nil
}

// settings are what a queue says about itself.
type settings struct {
	visibility, retention time.Duration
	maxBytes              int
	maxReceives           int
	delay                 time.Duration // of every message without one
	assumed               []string
	err                   error // why they are assumed
}

func (b *Backend) settings(ctx context.Context, url string) (settings, error) {
	s := settings{visibility: defaultVisibility, retention: defaultRetention, maxBytes: maxRequest}
	out, err := b.client.GetQueueAttributes(ctx, &awssqs.GetQueueAttributesInput{
		QueueUrl: &url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll},
	})
	if err != nil {
		if !denied(err) {
			return s, classify(err)
		}
		err = classify(err)
		s.err = err
		s.assumed = []string{"VisibilityTimeout", "MessageRetentionPeriod", "MaximumMessageSize", "RedrivePolicy"}
		return s, nil
	}
	number := func(name types.QueueAttributeName, set func(int)) {
		if n, err := strconv.Atoi(out.Attributes[string(name)]); err == nil && n > 0 {
			set(n)
		} else {
			s.assumed = append(s.assumed, string(name))
			s.err = errors.New("the answer doesn't have them")
		}
	}
	number(types.QueueAttributeNameVisibilityTimeout, func(n int) { s.visibility = time.Duration(n) * time.Second })
	number(types.QueueAttributeNameMessageRetentionPeriod, func(n int) { s.retention = time.Duration(n) * time.Second })
	number(types.QueueAttributeNameMaximumMessageSize, func(n int) { s.maxBytes = min(n, maxRequest) })
	if n, err := strconv.Atoi(out.Attributes[string(types.QueueAttributeNameDelaySeconds)]); err == nil {
		s.delay = time.Duration(n) * time.Second
	}
	if policy := out.Attributes[string(types.QueueAttributeNameRedrivePolicy)]; policy != "" {
		var p struct {
			MaxReceiveCount json.Number `json:"maxReceiveCount"`
		}
		if err := json.Unmarshal([]byte(policy), &p); err == nil {
			s.maxReceives, _ = strconv.Atoi(p.MaxReceiveCount.String()) // 0, unknown, if it's no number
		}
	}
	return s, nil
}

func capabilities(name, url string, fifo bool, s settings) queue.Capabilities {
	c := queue.Capabilities{
		Source: queue.Endpoint{System: system, Name: name}, Address: url,
		Wire:       queue.SQSWire(),
		MaxReceive: maxEntries, MaxSettle: maxEntries,
		Lease: s.visibility, MaxLease: maxVisibility, MaxExtension: maxVisibility,
		DelayUnit: time.Second, MaxRedeliveryDelay: maxVisibility, Retention: s.retention,
		Ordering: fifo, KeyLocked: fifo, Dedup: fifo,
		Attempts: queue.AttemptsApproximate, ReleaseCounts: true, BrokerMaxAttempts: s.maxReceives,
		SettleConfirmed: fifo,
		Assumed:         s.assumed,
	}
	c.Wire.MaxBytes = s.maxBytes
	if !fifo {
		c.Delays, c.MaxDelay = true, maxDelay
	}
	return c
}

var (
	_ queue.Queue    = (*handle)(nil)
	_ queue.Redriver = (*handle)(nil)
)

// handle is an opened queue.
type handle struct {
	client     *awssqs.Client
	name       string
	url        string
	fifo       bool
	wait       time.Duration
	visibility int32 // seconds to ask for with each receive
	caps       queue.Capabilities
	once       func(*awssqs.Options) // of calls that this package tries again by itself
	calls      remote.Calls
	out        batcher.Batcher[outgoing]
	polls      remote.Polls[*receipt]
	unseen     remote.Unseen
	counts     counts
}

// Capabilities tells what the queue can do.
func (h *handle) Capabilities() queue.Capabilities { return h.caps }

// Close waits for calls in flight, and for polls that went on after their
// Receive had ended: up to Options.Wait. What's still open when ctx ends is cut
// off; for such a poll that's no error.
func (h *handle) Close(ctx context.Context) error {
	err := h.calls.Close(ctx)
	h.out.Close()
	h.polls.Close(ctx)
	if err != nil {
		return h.fail("close", err)
	}
	return nil
}
