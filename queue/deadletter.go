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
	Source    Endpoint         `json:"src"`          // where it failed
	Reason    DeadLetterReason `json:"why,omitempty"`
	Failures  int              `json:"n,omitempty"` // the last one included
	Attempt   int              `json:"a,omitempty"` // the broker's count; 0: unknown
	Error     string           `json:"err,omitempty"`
	ErrorType string           `json:"type,omitempty"` // Go type of the innermost error
	Stack     string           `json:"stack,omitempty"`
	// Fingerprint groups like failures: it's the same for errors that differ
	// only in numbers and identifiers.
	Fingerprint string    `json:"fp,omitempty"`
	FirstAt     time.Time `json:"first,omitzero"` // first enqueue
	LastAt      time.Time `json:"last,omitzero"`  // last failure
	// Redriven is how often the message was moved back before.
	Redriven int `json:"re,omitempty"`
}

// DeadLetterReason says why a message was dead-lettered.
type DeadLetterReason string

const (
	ReasonRejected DeadLetterReason = "rejected" // the handler said so
	ReasonFailures DeadLetterReason = "failures" // too many
	ReasonAge      DeadLetterReason = "age"      // for too long
)

// NewDeadLetter returns the copy of d to publish to a dead-letter queue after it
// failed with err: body, attributes, id and ordering key, with the history in
// its metadata and without a DedupID. The history is cut when it doesn't fit; it
// never keeps the copy from being published.
func NewDeadLetter(d *Delivery, err error, reason DeadLetterReason, now time.Time) *Message {
	info := &DeadLetterInfo{
		ID: d.ID, Source: d.Source, Reason: reason, Failures: d.Failures + 1, Attempt: d.Attempt,
		FirstAt: d.EnqueuedAt, LastAt: now,
	}
	if err != nil {
		info.Error = strings.ToValidUTF8(err.Error(), "\uFFFD")
		info.ErrorType = errorType(err)
		if p, ok := errors.AsType[*PanicError](err); ok {
			info.Stack = strings.ToValidUTF8(string(p.Stack), "\uFFFD")
		}
		info.Fingerprint = Fingerprint(err)
	}
	if d.DeadLetter != nil {
		info.Redriven = d.DeadLetter.Redriven
	}
	m := hopMessage(d, time.Time{}, 0)
	m.meta.deadLetter = info
	return m
}

// redriven returns the message to publish back for a dead letter.
func redriven(d *Delivery, now time.Time) *Message {
	m := hopMessage(d, time.Time{}, 0)
	m.meta.ageFrom = now
	if m.meta.deadLetter != nil {
		dl := *m.meta.deadLetter
		dl.Redriven++
		dl.Stack = ""
		m.meta.deadLetter = &dl
	}
	return m
}

var variable = regexp.MustCompile(`(?i)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|0x[0-9a-f]+|"[^"]*"|[0-9]+`)

// Fingerprint returns a short text that is the same for errors of the same kind:
// their innermost type and their text without numbers, quoted parts and UUIDs;
// for panics also the place.
func Fingerprint(err error) string {
	if err == nil {
		return ""
	}
	h := fnv.New64a()
	text := err.Error()
	if len(text) > 4096 {
		text = text[:4096]
	}
	fmt.Fprintf(h, "%s\n%s\n", errorType(err), variable.ReplaceAllString(text, "#"))
	if p, ok := errors.AsType[*PanicError](err); ok {
		fmt.Fprint(h, panicSite(string(p.Stack)))
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

// panicSite is the function and line that panicked: the frame after the
// runtime's own.
func panicSite(stack string) string {
	lines := strings.Split(stack, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, "panic(") && i+3 < len(lines) {
			for j := i + 2; j+1 < len(lines); j += 2 {
				if !strings.HasPrefix(lines[j], "runtime.") {
					fn, _, _ := strings.Cut(lines[j], "(0x")
					at, _, _ := strings.Cut(strings.TrimSpace(lines[j+1]), " +0x")
					return fn + " " + at
				}
			}
		}
	}
	return ""
}

func errorType(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return fmt.Sprintf("%T", err)
		}
		err = next
	}
}
