package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// load is what the fake senders send, spread over a time.
type load struct {
	mailgun  *fakeMailgun
	partner  *fakePartner
	keys     map[string]string // of the partners
	events   int
	messages int
	over     time.Duration
}

// send sends everything and waits until each sender has its answer or has given
// up. When ctx ends it begins nothing new.
func (l *load) send(ctx context.Context) error {
	var senders sync.WaitGroup
	defer senders.Wait()
	total, messages := l.events+l.messages, 0
	for n, begin := 0, time.Now(); n < total; n++ {
		at := begin.Add(l.over * time.Duration(n) / time.Duration(total))
		if wait := time.Until(at); wait > 0 && !pause(ctx, wait) {
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
		// The messages are spread evenly among the events.
		if m := messages; (n+1)*l.messages/total > m {
			messages++
			senders.Go(func() { l.message(ctx, m) })
			continue
		}
		if err := l.event(ctx, n-messages, &senders); err != nil {
			return err
		}
	}
	return nil
}

// event sends one webhook; some twice, and some that must be refused.
func (l *load) event(ctx context.Context, n int, senders *sync.WaitGroup) error {
	kind := eventKinds[n%len(eventKinds)]
	id, event, err := newEvent(kind, n, time.Now())
	if err != nil {
		return err
	}
	body := sign(l.mailgun.key, event, time.Now())
	switch {
	case n%40 == 7: // somebody else pretends to be Mailgun
		body = sign("not the signing key", event, time.Now())
		senders.Go(func() { l.mailgun.send(ctx, sent{id: id, kind: "forged", want: http.StatusNotAcceptable}, body) })
		return nil
	case n%90 == 11: // something in between has cut it
		body = body[:len(body)/2]
		senders.Go(func() { l.mailgun.send(ctx, sent{id: id, kind: "malformed", want: http.StatusNotAcceptable}, body) })
		return nil
	case n%20 == 3: // Mailgun sends it twice, with a signature of its own
		again := sign(l.mailgun.key, event, time.Now())
		senders.Go(func() {
			if pause(ctx, 5*time.Millisecond) {
				l.mailgun.send(ctx, sent{id: id, kind: kind, want: http.StatusOK}, again)
			}
		})
	}
	senders.Go(func() { l.mailgun.send(ctx, sent{id: id, kind: kind, want: http.StatusOK}, body) })
	return nil
}

// message sends one message of a partner; some that must be refused.
func (l *load) message(ctx context.Context, n int) {
	partners := [...]string{"acme", "globex"}
	partner := partners[n%len(partners)]
	key := fmt.Sprintf("order-%d", n)
	r := partnerRequest{partner: partner, key: l.keys[partner]}
	s := sent{id: partner + ":" + key, kind: "message", want: http.StatusAccepted}
	content := fmt.Sprintf(`{"type": "order.created", "user": "u-%d", "data": {"order": %q, "total": %d.50}}`, n, key, n%500)
	switch n % 10 {
	case 0, 1: // the id is in the body
		content = `{"id": "` + key + `", ` + content[1:]
	case 2: // no id at all: the answer tells it
		s.id = ""
	case 3:
		switch n / 10 % 3 {
		case 0:
			r.key, s.want = "not the key", http.StatusUnauthorized
		case 1:
			content, s.want = content[:len(content)-1], http.StatusBadRequest
		case 2:
			content, s.want = content+strings.Repeat(" ", maxIntegrationBody), http.StatusRequestEntityTooLarge
		}
	default:
		r.idempotencyKey = key
	}
	r.body = []byte(content)
	l.partner.send(ctx, s, r)
}
