package main

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/anyqueue/anyqueue/queue"
)

// fanOut is how many messages are published in one call.
const fanOut = 500

// A ListSender makes one message per customer of a list. It may die at any
// point and be run again: credit is reserved by the blast's id, and each
// message has the same id as before.
type ListSender struct {
	CRM   *CRM
	Mails queue.Publisher // of blast-customer-sender
}

// Handle is the handler of blast-customer-list-sender.
func (s *ListSender) Handle(ctx context.Context, b Blast, _ *queue.Delivery) error {
	account, err := s.CRM.Account(ctx, b.Account)
	if err != nil {
		return outcome(err)
	}
	if !account.Active {
		return queue.Reject(errors.New("the account is suspended"))
	}
	customers, err := s.distinct(ctx, b)
	if err != nil {
		return outcome(err)
	}
	if err := s.CRM.Reserve(ctx, b.Account, b.ID, len(customers)); err != nil {
		return outcome(err)
	}
	for chunk := range slices.Chunk(customers, fanOut) {
		msgs := make([]*queue.Message, len(chunk))
		for i, customer := range chunk {
			m := CustomerMail{Blast: b, Customer: customer}
			body, err := json.Marshal(m)
			if err != nil {
				return queue.Reject(err)
			}
			msgs[i] = &queue.Message{ID: m.ID(), Body: body}
		}
		if err := s.Mails.Publish(ctx, msgs...); err != nil {
			return err
		}
	}
	return nil
}

// distinct reads the list, page by page, and leaves out repeats.
func (s *ListSender) distinct(ctx context.Context, b Blast) ([]string, error) {
	var customers []string
	seen := map[string]bool{}
	for page := 1; page > 0; {
		p, err := s.CRM.List(ctx, b.Account, b.List, page)
		if err != nil {
			return nil, err
		}
		for _, c := range p.Customers {
			if !seen[c] {
				seen[c] = true
				customers = append(customers, c)
			}
		}
		page = p.Next
	}
	return customers, nil
}
