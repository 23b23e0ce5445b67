//go:build unix

package main

import (
	"maps"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/anyqueue/anyqueue/examples/blast/parties"
	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
)

// watch follows the mail API and what the senders note about their mails. It may
// be used concurrently.
type watch struct {
	mu       sync.Mutex
	cond     *sync.Cond
	accepted int
	stop     int // mails, after which the API answers nobody; 0: none
	stopped  chan struct{}
	waiting  int // for that many mails under way
	enough   chan struct{}

	open   map[string]bool     // mails begun and not ended, by id
	story  map[string][]string // of each mail: begun, mail, mail lost, kill, done, in_doubt, ...
	atKill map[string]bool     // mails that were under way at a kill
	slow   map[string]bool     // mails that were under way while the API answered nobody: their sender may have given up
	cut    map[string]bool     // mails whose answer the network lost
}

func newWatch() *watch {
	w := &watch{open: map[string]bool{}, story: map[string][]string{}, atKill: map[string]bool{}, slow: map[string]bool{}, cut: map[string]bool{}}
	w.cond = sync.NewCond(&w.mu)
	return w
}

func (w *watch) mail(r thirdparty.Request) {
	if !r.Handled() {
		return
	}
	form, err := url.ParseQuery(string(r.Body))
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	id := form.Get("v:mail-id")
	w.story[id] = append(w.story[id], "mail")
	if r.Fault == thirdparty.Lost {
		w.cut[id] = true
	}
	w.accepted++
	for w.stop > 0 && w.accepted >= w.stop {
		if w.stopped != nil {
			close(w.stopped)
			w.stopped = nil
			maps.Copy(w.slow, w.open)
		}
		w.cond.Wait()
	}
}

func (w *watch) change(key, value string) {
	id, ok := strings.CutPrefix(key, parties.MailPrefix)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.story[id] = append(w.story[id], value)
	if value == sendBegun {
		w.open[id] = true
		if w.stop > 0 && w.accepted >= w.stop {
			w.slow[id] = true
		}
	} else {
		delete(w.open, id)
	}
	if w.enough != nil && len(w.open) >= w.waiting {
		close(w.enough)
		w.enough = nil
	}
}

// stopAfter makes the mail API answer nobody once it has so many mails. The
// channel is closed then.
func (w *watch) stopAfter(mails int) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stop, w.stopped = mails, make(chan struct{})
	return w.stopped
}

// underWay is closed when so many mails are begun and not ended.
func (w *watch) underWay(mails int) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	enough := make(chan struct{})
	if len(w.open) >= mails {
		close(enough)
		return enough
	}
	w.waiting, w.enough = mails, enough
	return enough
}

// killed notes that a sender has died just now.
func (w *watch) killed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.open {
		w.atKill[id] = true
		w.story[id] = append(w.story[id], "kill")
	}
}

// goOn makes the mail API answer again.
func (w *watch) goOn() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stop = 0
	w.cond.Broadcast()
}

// check explains every mail that was sent twice, and every one that's in doubt.
func (w *watch) check(t *testing.T, r parties.Result, resend bool, lostLease map[string]bool) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	assert.NotEmpty(t, w.atKill, "the kills hit senders at work")
	twice, held := 0, 0
	for id, story := range w.story {
		mails, why := 0, ""
		for _, event := range story {
			switch event {
			case "mail":
				if mails++; mails > 1 {
					twice++
					assert.NotEqual(t, sendDone, why, "sent again although it was known to be sent: %s %v", id, story)
				}
			case sendDone:
				why = sendDone
			case sendInDoubt:
				held++
			}
		}
		if mails > 1 || story[len(story)-1] == sendInDoubt {
			assert.True(t, w.atKill[id] || w.slow[id] || w.cut[id] || lostLease[id], "no kill, missing answer or lost lease explains %s %v", id, story)
		}
	}
	assert.Equal(t, twice, r.DuplicateMails)
	if !resend {
		assert.Zero(t, twice, "what's in doubt is held")
		assert.Greater(t, held, len(w.cut), "some because their sender was killed")
		return
	}
	assert.Zero(t, r.InDoubt)
	assert.Positive(t, twice, "the price of it")
}
