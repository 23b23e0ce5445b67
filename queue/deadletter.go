package queue

import (
	"errors"
	"fmt"
	"hash/fnv"
	"regexp"
	"strings"
	"time"
)

// DeadLetterInfo is the history of a message in a dead-letter queue. Texts may
// have been cut so that the message fits.
type DeadLetterInfo struct {
	ID        string           `json:"id,omitempty"` // the original's Delivery.ID
	Source    Endpoint         `json:"src,omitzero"` // where it failed
	Reason    DeadLetterReason `json:"why,omitempty"`
	Failures  int              `json:"n,omitempty"`     // the last one included
	Attempt   int              `json:"a,omitempty"`     // the broker's count; 0: unknown
	Error     string           `json:"err,omitempty"`   // at most 8 KiB
	ErrorType string           `json:"type,omitempty"`  // Go type of the innermost error
	Stack     string           `json:"stack,omitempty"` // of a panic; at most 16 KiB
	// Fingerprint groups like failures: it's the same for errors that differ
	// only in numbers and identifiers.
	Fingerprint string    `json:"fp,omitempty"`
	FirstAt     time.Time `json:"first,omitzero"` // first enqueue
	LastAt      time.Time `json:"last,omitzero"`  // last failure
	// Redriven is how often the message was moved back before, and Operation the
	// RedriveOptions.ID of the last time.
	Redriven  int    `json:"re,omitempty"`
	Operation string `json:"op,omitempty"`
	// Trial says that it was moved back as a test (RedriveOptions.Trial).
	Trial bool `json:"try,omitempty"`
}

const (
	maxErrorText = 8 << 10
	maxStackText = 16 << 10
)

// DeadLetterReason says why a message was dead-lettered.
type DeadLetterReason string

// The reasons.
const (
	ReasonRejected DeadLetterReason = "rejected" // the handler said so
	ReasonFailures DeadLetterReason = "failures" // too many
	ReasonAge      DeadLetterReason = "age"      // for too long
	ReasonTrial    DeadLetterReason = "trial"    // once, after it was moved back as a test
	ReasonBridge   DeadLetterReason = "bridge"   // the queue that Bridge copies to can't carry it
	ReasonBroker   DeadLetterReason = "broker"   // the broker did it itself, and says so
)

// NewDeadLetter returns the copy of d to publish to a dead-letter queue after it
// failed with err: body, attributes, id and ordering key, with the history in
// its metadata and without a DedupID. The history is cut when it doesn't fit; it
// never keeps the copy from being published. A dead-letter queue that keeps no
// order carries the ordering key in the metadata, and Redrive restores it.
func NewDeadLetter(d *Delivery, err error, reason DeadLetterReason, now time.Time) *Message {
	info := &DeadLetterInfo{
		ID: d.ID, Source: d.Source, Reason: reason, Failures: sane(d.Failures) + 1, Attempt: d.Attempt,
		FirstAt: wireTime(d.EnqueuedAt), LastAt: wireTime(now),
	}
	if err != nil {
		info.Error = clip(errorText(err), maxErrorText)
		info.ErrorType = errorType(err)
		if p, ok := errors.AsType[*PanicError](err); ok {
			info.Stack = clip(string(p.Stack), maxStackText)
		}
		info.Fingerprint = Fingerprint(err)
	}
	if d.DeadLetter != nil {
		info.Redriven, info.Operation = d.DeadLetter.Redriven, d.DeadLetter.Operation
	}
	m := hopMessage(d, time.Time{}, 0)
	m.meta.deadLetter = info
	return m
}

// redriven returns the message to publish back for a dead letter.
func redriven(d *Delivery, now time.Time, o *RedriveOptions) *Message {
	m := hopMessage(d, time.Time{}, 0)
	m.meta.ageFrom = now
	if due := d.Due(); due.After(now) { // the broker has dead-lettered it before its time
		m.meta.due, m.meta.ageFrom = due, due
	}
	if m.OrderingKey == "" {
		m.OrderingKey, m.meta.key = m.meta.key, ""
	}
	var dl DeadLetterInfo
	switch {
	case m.meta.deadLetter != nil:
		dl = *m.meta.deadLetter
	case o.ID == "" && !o.Trial:
		return m // dead-lettered by a broker that doesn't say so, or put there by hand
	}
	dl.Redriven++
	dl.Operation, dl.Trial = o.ID, o.Trial
	dl.Stack = "" // it has been read, and costs the most
	m.meta.deadLetter = &dl
	return m
}

func clip(s string, n int) string {
	return wholeRunes(strings.ToValidUTF8(s, "\uFFFD"), n)
}

// errorText is err.Error(), also for an error whose method panics.
func errorText(err error) string { return fmt.Sprintf("%v", err) }

// variable matches what differs between like errors: quoted parts and words with
// a digit in them (numbers, times, addresses, UUIDs and other identifiers).
var variable = regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.)*\"|`[^`]*`|[\\w+-]*[0-9](?:[\\w.:µ+-]*[\\wµ])?")

// Fingerprint returns a short text that is the same for errors of the same kind:
// their innermost type and their text without numbers, identifiers and quoted
// parts; for panics also the function and line. It's empty for nil.
func Fingerprint(err error) string {
	if err == nil {
		return ""
	}
	h := fnv.New64a()
	text := variable.ReplaceAllString(clip(errorText(err), 4096), "#")
	fmt.Fprintf(h, "%s\n%s\n", errorType(err), text)
	if p, ok := errors.AsType[*PanicError](err); ok {
		fmt.Fprint(h, panicSite(string(p.Stack)))
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

// panicSite is the function and line that panicked first, from a stack as
// debug.Stack gives it: the frame below the runtime's own.
func panicSite(stack string) string {
	lines := strings.Split(stack, "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if !strings.HasPrefix(lines[i], "panic(") {
			continue
		}
		for j := i + 2; j+1 < len(lines); j += 2 {
			if strings.HasPrefix(lines[j], "runtime.") {
				continue
			}
			fn := lines[j]
			if k := strings.LastIndexByte(fn, '('); k > 0 { // the arguments
				fn = fn[:k]
			}
			// The path differs between the machines that built the program.
			at, _, _ := strings.Cut(lines[j+1], " +0x")
			return fn + at[max(strings.LastIndexByte(at, ':'), 0):]
		}
	}
	return ""
}

// errorType is the Go type of the innermost error; of the first branch where
// there are several.
func errorType(err error) string {
	for {
		var next error
		switch x := err.(type) { //nolint:errorlint // walks the chain by hand, to its end
		case interface{ Unwrap() error }:
			next = x.Unwrap()
		case interface{ Unwrap() []error }:
			for _, e := range x.Unwrap() {
				if e != nil {
					next = e
					break
				}
			}
		}
		if next == nil {
			return fmt.Sprintf("%T", err)
		}
		err = next
	}
}
