package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// How the CRM is spoken to:
// https://developer.salesforce.com/docs/platform/api-rest/guide/dome-upsert.html
// https://developer.salesforce.com/docs/platform/api-rest/guide/errorcodes.html
// https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oauth_client_credentials_flow.htm

const (
	apiVersion      = "v64.0"
	externalIDField = "External_Id__c"
)

// crmLead is the CRM's record, as far as the form fills it. The external id
// isn't in the body: it's in the path.
type crmLead struct {
	FirstName   string `json:"FirstName,omitempty"`
	LastName    string `json:"LastName"`
	Company     string `json:"Company,omitempty"`
	Email       string `json:"Email"`
	LeadSource  string `json:"LeadSource"`
	Description string `json:"Description,omitempty"`
}

// crmError is a refusal of the CRM. Its answers are arrays; the first entry
// tells the reason.
type crmError struct {
	Status  int
	Code    string   `json:"errorCode"`
	Message string   `json:"message"`
	Fields  []string `json:"fields"`
}

func (e *crmError) Error() string {
	s := fmt.Sprintf("crm: %d %s: %s", e.Status, e.Code, e.Message)
	if len(e.Fields) > 0 {
		s += " (" + strings.Join(e.Fields, ", ") + ")"
	}
	return s
}

// crm is a client of the CRM. It may be used concurrently.
type crm struct {
	loginURL     string // https://MyDomain.my.salesforce.com
	clientID     string
	clientSecret string
	client       *http.Client

	mu      sync.Mutex
	session *session
	login   *loginCall // under way, if any
}

type session struct {
	AccessToken string `json:"access_token"`
	InstanceURL string `json:"instance_url"`
}

// upsert creates the lead with that external id, or updates it: calling it
// again does no harm. A session that has expired is renewed and the call
// repeated.
func (c *crm) upsert(ctx context.Context, id string, lead crmLead) error {
	body, err := json.Marshal(lead)
	if err != nil {
		return fmt.Errorf("crm: %w", err)
	}
	var expired *session
	for {
		s, err := c.currentSession(ctx, expired)
		if err != nil {
			return err
		}
		err = c.patch(ctx, s, "/services/data/"+apiVersion+"/sobjects/Lead/"+externalIDField+"/"+url.PathEscape(id), body)
		refusal, ok := errors.AsType[*crmError](err)
		if !ok || refusal.Status != http.StatusUnauthorized || expired != nil {
			return err
		}
		expired = s
	}
}

func (c *crm) patch(ctx context.Context, s *session, path string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, s.InstanceURL+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("crm: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+s.AccessToken)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.client.Do(req)
	if err != nil {
		return fmt.Errorf("crm: %w", err) // it may have been done: the external id makes trying again safe
	}
	defer func() { _ = resp.Body.Close() }()
	switch resp.StatusCode {
	case http.StatusCreated, http.StatusOK, http.StatusNoContent: // 201 created; 200 or, in older versions, 204 updated
		return nil
	}
	return refusalOf(resp)
}

// refusalOf reads the answer of a call that failed. Whatever stands between us
// and the CRM may answer in another form.
func refusalOf(resp *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, 8<<10))
	if err != nil {
		return fmt.Errorf("crm: %s: %w", resp.Status, err)
	}
	var refusals []crmError
	if json.Unmarshal(text, &refusals) != nil || len(refusals) == 0 {
		return &crmError{Status: resp.StatusCode, Message: strings.TrimSpace(string(text))}
	}
	e := refusals[0]
	e.Status = resp.StatusCode
	return &e
}

// loginCall is a login that several callers wait for.
type loginCall struct {
	done    chan struct{}
	session *session
	err     error
}

// loginTimeout bounds a login: it doesn't end with the caller that began it, as
// others may wait for it.
const loginTimeout = 10 * time.Second

// currentSession returns a session other than expired, and logs in when there
// is none. However many callers find that the session has expired, there's one
// login.
func (c *crm) currentSession(ctx context.Context, expired *session) (*session, error) {
	c.mu.Lock()
	if c.session != nil && c.session != expired {
		defer c.mu.Unlock()
		return c.session, nil
	}
	call := c.login
	if call == nil {
		call = &loginCall{done: make(chan struct{})}
		c.login = call
		go c.finish(context.WithoutCancel(ctx), call)
	}
	c.mu.Unlock()
	select {
	case <-call.done:
		return call.session, call.err
	case <-ctx.Done():
		return nil, fmt.Errorf("crm: login: %w", context.Cause(ctx))
	}
}

func (c *crm) finish(ctx context.Context, call *loginCall) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	call.session, call.err = c.logIn(ctx)
	c.mu.Lock()
	if call.err == nil {
		c.session = call.session
	}
	c.login = nil
	c.mu.Unlock()
	close(call.done)
}

// logIn uses OAuth's client credentials.
func (c *crm) logIn(ctx context.Context) (*session, error) {
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {c.clientID}, "client_secret": {c.clientSecret}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.loginURL+"/services/oauth2/token", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, fmt.Errorf("crm: login: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("crm: login: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		// Not wrapped: what's wrong with the login says nothing about the lead.
		return nil, fmt.Errorf("crm: login: %v", refusalOf(resp)) //nolint:errorlint // on purpose
	}
	var s session
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&s); err != nil {
		return nil, fmt.Errorf("crm: login: %w", err)
	}
	if s.AccessToken == "" || s.InstanceURL == "" {
		return nil, errors.New("crm: login: no token in the answer")
	}
	return &s, nil
}
