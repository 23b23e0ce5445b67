package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// mailgunEvent is the part of Mailgun's event that the worker uses. Any field
// but ID and Event may be missing, and new ones may come at any time:
// https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhook-payloads
type mailgunEvent struct {
	ID             string          `json:"id"`
	Event          string          `json:"event"`
	Severity       string          `json:"severity"` // of failed: permanent or temporary
	Reason         string          `json:"reason"`
	Recipient      string          `json:"recipient"`
	Timestamp      float64         `json:"timestamp"` // seconds since 1970
	DeliveryStatus *deliveryStatus `json:"delivery-status"`
	ClientInfo     *clientInfo     `json:"client-info"`
}

type deliveryStatus struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

type clientInfo struct {
	Name string `json:"client-name"`
	OS   string `json:"client-os"`
}

// describer makes of Mailgun's event what analytics should know about it.
type describer func(mailgunEvent) (name string, properties map[string]any)

// describe is right: it takes any event, also of a type that it doesn't know.
func describe(e mailgunEvent) (string, map[string]any) {
	p := map[string]any{}
	if s := e.DeliveryStatus; s != nil {
		p["code"], p["message"] = s.Code, s.Message
	}
	if c := e.ClientInfo; c != nil {
		p["client"], p["os"] = c.Name, c.OS
	}
	switch e.Event {
	case "delivered":
		return "Email Delivered", p
	case "failed":
		p["reason"] = e.Reason
		if e.Severity == "permanent" {
			return "Email Bounced", p
		}
		return "Email Deferred", p
	case "opened":
		return "Email Opened", p
	case "complained":
		return "Email Marked As Spam", p
	case "unsubscribed":
		return "Unsubscribed", p
	}
	p["type"] = e.Event
	return "Email Event", p
}

// describeWithBug is how it was first written: whoever complains has clicked
// somewhere, so there is a client. There isn't: complaints come from the
// mailbox providers. It panics on each.
func describeWithBug(e mailgunEvent) (string, map[string]any) {
	if e.Event == "complained" {
		return "Email Marked As Spam", map[string]any{"client": e.ClientInfo.Name, "os": e.ClientInfo.OS}
	}
	return describe(e)
}

// tracker is where the worker writes to.
type tracker interface {
	track(ctx context.Context, e trackedEvent) error
}

// handleMailgun returns the handler of the queue mailgun-events. What isn't
// Mailgun's JSON never gets here: the web part has read it.
func handleMailgun(t tracker, d describer) queue.Handler {
	type body struct {
		Event mailgunEvent `json:"event-data"`
	}
	return queue.JSON(func(ctx context.Context, b body, dl *queue.Delivery) error {
		name, properties := d(b.Event)
		properties["source_sha256"] = sum(dl.Body)
		return t.track(ctx, trackedEvent{
			MessageID:  dl.ID,
			UserID:     b.Event.Recipient,
			Event:      name,
			Properties: properties,
			Timestamp:  time.UnixMicro(int64(b.Event.Timestamp * 1e6)).UTC(),
		})
	})
}

// handleIntegration returns the handler of the queue integrations.
func handleIntegration(t tracker) queue.Handler {
	type body struct {
		Type string          `json:"type"`
		User string          `json:"user"`
		Data json.RawMessage `json:"data"`
	}
	return queue.JSON(func(ctx context.Context, b body, d *queue.Delivery) error {
		partner := d.Attributes["partner"]
		properties := map[string]any{"partner": partner, "source_sha256": sum(d.Body)}
		if b.Data != nil {
			properties["data"] = b.Data
		}
		if b.User == "" {
			b.User = "partner:" + partner
		}
		return t.track(ctx, trackedEvent{
			MessageID: d.ID, UserID: b.User, Event: b.Type, Properties: properties, Timestamp: d.EnqueuedAt.UTC(),
		})
	})
}

// sum identifies the bytes that arrived, for an audit of where a number came
// from.
func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}
