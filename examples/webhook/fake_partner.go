package main

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// fakePartner sends messages as a partner's system does: again, with the same
// id, while there's no answer or a 503. Without an id of its own it doesn't send
// again what may have arrived. It may be used concurrently.
type fakePartner struct {
	sender
	url   string // of the web part
	retry time.Duration
}

// partnerRequest is one request of a partner.
type partnerRequest struct {
	partner        string
	key            string
	idempotencyKey string // empty: none
	body           []byte
}

func (p *fakePartner) send(ctx context.Context, s sent, r partnerRequest) {
	s.source = sum(r.body)
	header := http.Header{"Authorization": {"Bearer " + r.key}}
	if r.idempotencyKey != "" {
		header.Set("Idempotency-Key", `"`+r.idempotencyKey+`"`)
	}
	const tries = 10
	for s.try = 1; s.try <= tries; s.try++ {
		status, text := p.post(ctx, p.url+"/integrations/"+r.partner, r.body, header)
		s.status = status
		if status == http.StatusAccepted {
			var a struct {
				ID string `json:"id"`
			}
			if json.Unmarshal(text, &a) == nil && a.ID != "" {
				s.id = a.ID // what it will ask about one day
			}
		}
		p.note(s)
		if again := status == http.StatusServiceUnavailable || status == 0 && s.id != ""; !again {
			return
		}
		if !pause(ctx, p.retry) {
			return
		}
	}
}
