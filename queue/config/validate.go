package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/anyqueue/anyqueue/middleware"
	"github.com/anyqueue/anyqueue/queue"
)

// checker finds what can't be meant in a File, whether it was read or made.
type checker struct {
	f        *File
	names    map[string]*Queue
	problems []Problem
}

// validate returns everything that contradicts itself or something else.
func (f *File) validate() []Problem {
	c := &checker{f: f}
	if slices.Contains(f.Queues, nil) {
		c.add("queues", position{}, "has a nil")
	}
	if slices.Contains(f.Limits, nil) {
		c.add("limits", position{}, "has a nil")
	}
	if len(f.Queues) == 0 {
		c.add("queues", position{}, "there are none")
	}
	if len(c.problems) > 0 {
		return c.problems
	}
	c.names = f.names()
	limits := map[string]bool{}
	for _, l := range f.Limits {
		c.limit(l, limits)
	}
	seen := map[string]bool{}
	places := map[string]string{}
	for _, q := range f.Queues {
		if seen[q.Name] {
			c.queue(q, "is given twice")
		}
		seen[q.Name] = true
		c.identity(q, places)
		c.numbers(q)
		c.delivery(q)
		c.deadLetter(q)
		c.retention(q)
	}
	return c.problems
}

func (c *checker) add(path string, at position, reason string) {
	c.problems = append(c.problems, Problem{File: c.f.Name, Line: at.line, Column: at.column, Path: path, Reason: reason})
}

// queue reports a problem of q that lies between the given keys: at the first
// that q itself has, otherwise at the first that it inherits, otherwise at the
// queue.
func (c *checker) queue(q *Queue, reason string, keys ...string) {
	own := join("queues", q.Name)
	for _, base := range []string{own, "defaults", ""} {
		for _, key := range keys {
			if at, ok := c.f.at[join(base, key)]; ok {
				c.add(join(base, key), at, reason)
				return
			}
		}
	}
	path := own
	if len(keys) > 0 && c.f.at == nil {
		path = join(own, keys[0])
	}
	c.add(path, c.f.at[own], reason)
}

func (c *checker) limit(l *Limit, seen map[string]bool) {
	path := join("limits", l.Name)
	at := c.f.at[path]
	if seen[l.Name] {
		c.add(path, at, "is given twice")
	}
	seen[l.Name] = true
	if l.Name == "" || l.Name == off {
		c.add(path, at, "can't be the name of a limit")
	}
	if l.Concurrency < 0 {
		c.add(join(path, "concurrency"), at, "is negative")
	}
	if !rateWorks(l.Rate) {
		c.add(join(path, "rate"), at, wrongRate)
	}
	if l.Concurrency == 0 && l.Rate == 0 && !c.hasAny(path, "concurrency", "rate") {
		c.add(path, at, "limits nothing; it needs concurrency or rate")
	}
}

// hasAny reports whether the file has one of the keys, be it with a value that
// couldn't be read and was reported before.
func (c *checker) hasAny(path string, keys ...string) bool {
	return slices.ContainsFunc(keys, func(k string) bool {
		_, ok := c.f.at[join(path, k)]
		return ok
	})
}

func (c *checker) identity(q *Queue, places map[string]string) {
	if err := queue.CheckName(q.Name); err != nil {
		c.queue(q, reasonOf(err))
	}
	if q.Backend == "" && !c.hasAny("", "backend") && !c.hasAny(join("queues", q.Name), "backend") {
		c.queue(q, "has no backend, and there is none at the top of the file", "backend")
	}
	if q.Address == "" {
		return
	}
	place := q.Backend + " " + q.Address
	if other, taken := places[place]; taken {
		c.queue(q, "is the address of "+other+" too", "address")
	} else {
		places[place] = q.Name
	}
}

// reasonOf leaves out what the place in the file already says.
func reasonOf(err error) string {
	if invalid, ok := errors.AsType[*queue.InvalidError](err); ok {
		return invalid.Reason
	}
	return err.Error()
}

// numbers refuses what Parse can't let through, but who makes a File can.
func (c *checker) numbers(q *Queue) {
	for key, negative := range map[string]bool{
		"concurrency":    q.Concurrency < 0,
		"delay":          q.Delay < 0,
		"lease":          q.Lease < 0,
		"retention":      q.Retention < 0,
		"max_hold":       q.MaxHold < 0,
		"timeout":        q.Timeout < 0,
		"max_extension":  q.MaxExtension < 0,
		"retry.in_place": q.Retry.InPlace < 0,
		"retry.min":      q.Retry.Min < 0,
		"retry.max":      q.Retry.Max < 0,
	} {
		if negative {
			c.queue(q, "is negative", key)
		}
	}
	if !rateWorks(q.Rate) {
		c.queue(q, wrongRate, "rate")
	}
	if q.Concurrency > queue.MaxConcurrency {
		c.queue(q, fmt.Sprintf("%d is over %d", q.Concurrency, queue.MaxConcurrency), "concurrency")
	}
	if f := q.Retry.Factor; f != 0 && !(f >= 1 && f <= maxFactor) { // also NaN
		c.queue(q, fmt.Sprintf("%v isn't from 1 to %v", f, maxFactor), "retry.factor")
	}
	if !(q.Retry.Jitter <= 1) {
		c.queue(q, fmt.Sprintf("%v isn't from 0 to 1", q.Retry.Jitter), "retry.jitter")
	}
}

func (c *checker) delivery(q *Queue) {
	if q.Retry.Min > 0 && q.Retry.Max > 0 && q.Retry.Min > q.Retry.Max {
		c.queue(q, fmt.Sprintf("min %s is over max %s", short(q.Retry.Min), short(q.Retry.Max)), "retry.min", "retry.max")
	}
	if q.Ordered && q.Delay > 0 {
		c.queue(q, "an ordered queue can't delay messages", "delay", "ordered")
	}
	longest := q.MaxExtension
	if longest == 0 {
		longest = queue.DefaultMaxExtension
	}
	if q.Timeout > longest && q.MaxExtension >= 0 {
		c.queue(q, fmt.Sprintf("timeout %s is over max_extension %s, at which the lease ends", short(q.Timeout), short(longest)), "timeout", "max_extension")
	}
	if q.Limit != "" && c.f.limit(q.Limit) == nil {
		names := make([]string, len(c.f.Limits))
		for i, l := range c.f.Limits {
			names[i] = l.Name
		}
		c.queue(q, unknown("no limit", q.Limit, names), "limit")
	}
}

func (c *checker) deadLetter(q *Queue) {
	dl := q.DeadLetter
	if dl == nil {
		return
	}
	if dl.MaxFailures < 0 {
		c.queue(q, "is negative", "dead_letter.max_failures")
	}
	if dl.OnExhausted != middleware.Skip && dl.OnExhausted != middleware.Block {
		c.queue(q, notExhausted, "dead_letter.on_exhausted")
	}
	if dl.OnExhausted == middleware.Block && !q.Ordered {
		c.queue(q, "block is for ordered queues; here there is no order to keep", "dead_letter.on_exhausted", "ordered")
	}
	to := c.names[dl.Queue]
	switch {
	case dl.Queue == "":
		if !c.hasAny(join("queues", q.Name), "dead_letter.queue") {
			c.queue(q, "needs a queue", "dead_letter")
		}
	case to == nil:
		c.queue(q, unknown("no queue", dl.Queue, slices.Collect(maps.Keys(c.names))), "dead_letter.queue")
	case to == q:
		c.queue(q, "is the queue itself", "dead_letter.queue")
	case q.Ordered && !to.Ordered:
		c.queue(q, fmt.Sprintf("%s must be ordered too: the dead-letter queue of a FIFO queue of SQS is one as well", dl.Queue), "dead_letter.queue")
	default:
		c.cycle(q)
	}
}

// retention refuses what a message doesn't live to see.
func (c *checker) retention(q *Queue) {
	if q.Retention <= 0 {
		return
	}
	kept := short(q.Retention)
	for _, wait := range []struct {
		key   string
		d     time.Duration
		means string
	}{
		{"delay", q.Delay, "a message would be gone before it's due"},
		{"lease", q.Lease, "a message whose worker died would be gone before it comes again"},
		{"retry.max", q.Retry.Max, "a message would be gone while it waits to be tried again"},
	} {
		if wait.d >= q.Retention {
			c.queue(q, fmt.Sprintf("%s %s isn't under retention %s: %s", wait.key, short(wait.d), kept, wait.means), wait.key, "retention")
		}
	}
	dl := q.DeadLetter
	if dl == nil {
		return
	}
	if dl.MaxAge >= q.Retention {
		c.queue(q, fmt.Sprintf("max_age %s isn't under retention %s: a message would be gone before it's given up", short(dl.MaxAge), kept), "dead_letter.max_age", "retention")
	}
	if to := c.names[dl.Queue]; to != nil && to != q && to.Retention > 0 && to.Retention < q.Retention {
		c.queue(to, fmt.Sprintf("retention %s is under the %s of %s, whose dead letters it keeps", short(to.Retention), kept, q.Name), "retention")
	}
}

// cycle reports dead-letter queues that lead back to q, once for each circle.
func (c *checker) cycle(q *Queue) {
	path := []string{q.Name}
	seen := map[string]bool{}
	for at := q; ; {
		if at = c.names[at.DeadLetter.Queue]; at == nil || at.DeadLetter == nil || seen[at.Name] {
			return // it ends, or is a circle further on
		}
		seen[at.Name] = true
		path = append(path, at.Name)
		if at == q {
			break
		}
	}
	for _, earlier := range c.f.Queues {
		if earlier == q {
			break
		}
		if seen[earlier.Name] {
			return // reported there
		}
	}
	c.queue(q, "leads back to itself: "+strings.Join(path, " -> "), "dead_letter.queue")
}

// names are the queues by name.
func (f *File) names() map[string]*Queue {
	m := make(map[string]*Queue, len(f.Queues))
	for _, q := range f.Queues {
		m[q.Name] = q
	}
	return m
}

// short is d without the zeros at its end: 5m, not 5m0s, and 4d, not 96h.
func short(d time.Duration) string {
	if d >= day && d%day == 0 {
		return strconv.Itoa(int(d/day)) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
