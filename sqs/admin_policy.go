package sqs

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// maxReceiveCount is the most that SQS takes.
const maxReceiveCount = 1000

// policy is a redrive policy: SQS itself moves what was received so often.
type policy struct {
	arn      string // of the dead-letter queue; empty: it doesn't exist yet
	name     string // of the dead-letter queue
	receives int
}

func (p *policy) String() string {
	if p == nil {
		return "none"
	}
	return fmt.Sprintf("%s after %d receives", p.name, p.receives)
}

func (p *policy) same(q *policy) bool {
	if p == nil || q == nil || p.receives != q.receives {
		return p == q
	}
	if p.arn == "" || q.arn == "" {
		return p.name == q.name
	}
	return p.arn == q.arn
}

func (p *policy) json() string {
	// A struct of strings and numbers always has a form in JSON.
	b, _ := json.Marshal(struct {
		Target   string `json:"deadLetterTargetArn"`
		Receives int    `json:"maxReceiveCount"`
	}{p.arn, p.receives})
	return string(b)
}

// parsePolicy reads the attribute RedrivePolicy of a queue; nil if there's none.
// SQS tells the count as a number, other servers as a string, which is how it may
// have been set.
func parsePolicy(s string) *policy {
	var p struct {
		Target   string      `json:"deadLetterTargetArn"`
		Receives json.Number `json:"maxReceiveCount"`
	}
	if s == "" || json.Unmarshal([]byte(s), &p) != nil || p.Target == "" {
		return nil
	}
	n, err := strconv.Atoi(p.Receives.String())
	if err != nil {
		n = 0 // which no policy that was asked for has, so it's told as different
	}
	return &policy{arn: p.Target, name: p.Target[strings.LastIndexByte(p.Target, ':')+1:], receives: n}
}
