package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const day = 24 * time.Hour

// service is what a messaging service allows, as it says itself.
type service struct {
	name                       string
	minLease, maxLease         time.Duration
	maxTotal                   time.Duration // of a lease with its extensions; 0: any
	minRetention, maxRetention time.Duration
	tags                       string // what it calls them
	maxTags                    int
	tag                        func(name, value string) (reason string)
}

// serviceOf returns the service behind a queue.Backend's System, or nil when it's
// not known to have limits.
func serviceOf(system string) *service {
	switch system {
	case "aws_sqs":
		return &service{"SQS", time.Second, 12 * time.Hour, 12 * time.Hour, time.Minute, 14 * day, "tags", 50, awsTag}
	case "gcp_pubsub":
		return &service{"Pub/Sub", time.Second, 10 * time.Minute, 0, 10 * time.Minute, 31 * day, "labels", 64, googleLabel}
	}
	return nil
}

// checkBackends returns the queues whose backend the program doesn't have, or whose
// settings that has no use for.
func (f *File) checkBackends(backends Backends) []Problem {
	c := &checker{f: f}
	known := slices.Collect(maps.Keys(backends))
	for _, q := range f.Queues {
		if q == nil || q.Backend == "" {
			continue // reported before
		}
		switch b, ok := backends[q.Backend]; {
		case !ok:
			c.queue(q, unknown("no backend", q.Backend, known), "backend")
		case b == nil:
			c.queue(q, "the backend "+quote(q.Backend)+" is nil", "backend")
		default:
			if s := serviceOf(b.System()); s != nil {
				c.service(q, s)
			}
		}
	}
	return c.problems
}

// service refuses what the service would refuse, when the queue is opened or made.
func (c *checker) service(q *Queue, s *service) {
	within := func(key string, d, low, high time.Duration) {
		if d > 0 && (d < low || d > high) {
			c.queue(q, fmt.Sprintf("%s %s isn't %s to %s, which %s allows", key, short(d), short(low), short(high), s.name), key)
		}
	}
	within("lease", q.Lease, s.minLease, s.maxLease)
	within("retention", q.Retention, s.minRetention, s.maxRetention)
	if q.Delay > s.maxRetention {
		c.queue(q, fmt.Sprintf("delay %s is over %s, the longest that %s keeps a message", short(q.Delay), short(s.maxRetention), s.name), "delay")
	}
	if s.maxTotal > 0 && q.Timeout > s.maxTotal {
		c.queue(q, fmt.Sprintf("timeout %s is over %s, at which %s ends a lease, however often it was extended", short(q.Timeout), short(s.maxTotal), s.name), "timeout")
	}
	if dl := q.DeadLetter; dl != nil && dl.MaxAge >= s.maxRetention {
		c.queue(q, fmt.Sprintf("max_age %s isn't under %s, the longest that %s keeps a message", short(dl.MaxAge), short(s.maxRetention), s.name), "dead_letter.max_age")
	}
	if n := len(q.Tags); n > s.maxTags {
		c.queue(q, fmt.Sprintf("%d %s are over %d, which %s allows", n, s.tags, s.maxTags, s.name), "tags")
	}
	for name, value := range q.Tags {
		if reason := s.tag(name, value); reason != "" {
			c.queue(q, reason, "tags."+name)
		}
	}
}

// awsTag tells what's wrong with a tag on Amazon's services.
func awsTag(name, value string) string {
	allowed := func(r rune) bool { return isWord(r) || unicode.IsSpace(r) || strings.ContainsRune("_.:/=+-@", r) }
	switch {
	case utf8.RuneCountInString(name) > 128:
		return "the name of a tag on SQS has at most 128 characters"
	case utf8.RuneCountInString(value) > 256:
		return "the value of a tag on SQS has at most 256 characters"
	case strings.HasPrefix(strings.ToLower(name), "aws:"):
		return "a tag that begins with aws: is Amazon's own"
	case !all(name, allowed) || !all(value, allowed):
		return "a tag on SQS has letters, digits, spaces and _.:/=+-@ only"
	}
	return ""
}

// googleLabel tells what's wrong with a label on Google's services.
func googleLabel(name, value string) string {
	allowed := func(r rune) bool { return isWord(r) && !unicode.IsUpper(r) || r == '_' || r == '-' }
	first, _ := utf8.DecodeRuneInString(name)
	switch {
	case utf8.RuneCountInString(name) > 63 || utf8.RuneCountInString(value) > 63:
		return "the name and the value of a label on Pub/Sub have at most 63 characters each"
	case !all(name, allowed) || !all(value, allowed) || !unicode.IsLetter(first):
		return "a label on Pub/Sub has lower-case letters, digits, _ and - only, and its name begins with a letter"
	}
	return ""
}

func isWord(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) }

func all(s string, ok func(rune) bool) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !ok(r) })
}
