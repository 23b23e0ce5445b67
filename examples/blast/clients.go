package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// CRM is the customer service: accounts, lists and customers.
type CRM struct{ service }

// Account is a customer of ours, who sends mails to customers of theirs.
type Account struct {
	Active bool `json:"active"`
}

// A Customer gets mails.
type Customer struct {
	ID       string            `json:"id"`
	Email    string            `json:"email"`
	Name     string            `json:"name"`
	OptedOut bool              `json:"opted_out"`
	Fields   map[string]string `json:"fields"`
}

// A Page is a part of a list of customers.
type Page struct {
	Customers []string `json:"customers"`
	Next      int      `json:"next"` // 0: this is the last one
}

// Account looks up an account.
func (c *CRM) Account(ctx context.Context, id string) (a Account, err error) {
	return a, c.get(ctx, "/accounts/"+url.PathEscape(id), &a)
}

// Reserve takes credit for a blast; for the same blast only once.
func (c *CRM) Reserve(ctx context.Context, account string, blast uuid.UUID, mails int) error {
	return c.send(ctx, http.MethodPost, "/accounts/"+url.PathEscape(account)+"/reservations", map[string]any{"id": blast, "credits": mails}, nil)
}

// List returns a page of a list, from 1.
func (c *CRM) List(ctx context.Context, account, list string, page int) (p Page, err error) {
	path := "/accounts/" + url.PathEscape(account) + "/lists/" + url.PathEscape(list) + "?page=" + strconv.Itoa(page)
	return p, c.get(ctx, path, &p)
}

// Customer looks up a customer. errNotFound says that there's none.
func (c *CRM) Customer(ctx context.Context, id string) (*Customer, error) {
	var customer Customer
	if err := c.get(ctx, "/customers/"+url.PathEscape(id), &customer); err != nil {
		return nil, err
	}
	return &customer, nil
}

// AddressChecker tells whether mail can be delivered to an address. It speaks
// the API of https://docs.kickbox.com/reference/verify-an-email-address.
type AddressChecker struct {
	service
	key string
}

// A Check is what the checker says: Result is deliverable, undeliverable, risky
// or unknown.
type Check struct {
	Result string `json:"result"`
	Reason string `json:"reason"`
}

// Check asks about an address.
func (c *AddressChecker) Check(ctx context.Context, email string) (check Check, err error) {
	q := url.Values{"email": {email}, "apikey": {c.key}}
	return check, c.get(ctx, "/v2/verify?"+q.Encode(), &check)
}

// Mailgun sends mails with the API of
// https://documentation.mailgun.com/docs/mailgun/api-reference/openapi-final/tag/Messages/.
type Mailgun struct {
	service
	domain string
	key    string
	from   string
}

// Send sends a mail and returns Mailgun's id for it. See notDone for what an
// error means.
func (m *Mailgun) Send(ctx context.Context, mail *Mail) (id string, err error) {
	form := url.Values{
		"from": {m.from}, "to": {mail.To}, "subject": {mail.Subject}, "text": {mail.Text}, "html": {mail.HTML},
		"v:mail-id": {mail.ID}, "v:customer": {mail.Customer},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.url+"/v3/"+url.PathEscape(m.domain)+"/messages", strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("api", m.key)
	var answer struct {
		ID string `json:"id"`
	}
	err = m.do(req, &answer)
	return answer.ID, err
}

// isDown reports whether err says that Mailgun itself is in trouble.
func (m *Mailgun) isDown(err error) bool {
	var r *refusal
	return errors.As(err, &r) && r.service == m.name && r.status >= 500
}

// ActivityService keeps what happened to customers.
type ActivityService struct{ service }

// Put stores an activity; the same id again changes nothing.
func (s *ActivityService) Put(ctx context.Context, id string, a Activity) error {
	return s.send(ctx, http.MethodPut, "/activities/"+url.PathEscape(id), a, nil)
}

// send sends v as JSON.
func (s *service) send(ctx context.Context, method, path string, v, result any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	return s.do(req, result)
}
