// Package interoptest runs programs in Python that share queues with this library,
// and compares what went in on one side with what came out on the other. It's for the
// tests of backends.
package interoptest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// script is where a backend has its program, seen from its tests.
const script = "interop/interop.py"

// Line is a message as the programs read and write it, a JSON object in a line.
type Line struct {
	ID         string         `json:"id,omitempty"`
	BrokerID   string         `json:"broker_id,omitempty"` // of what was received
	Body       []byte         `json:"body"`
	Attributes map[string]any `json:"attributes,omitempty"` // strings, or []byte
	Key        string         `json:"key,omitempty"`
	Due        int64          `json:"due,omitempty"` // Unix milliseconds

	DeadLetter *queue.DeadLetterInfo `json:"dead_letter,omitempty"`
}

// Program is a program in Python, in an environment with the address of a server.
type Program struct {
	t           *testing.T
	interpreter string
	env         []string
}

// Python finds the interpreter that an environment variable names, of a Python with a
// library; the test is skipped where it's empty. Programs have env in their environment,
// beside what the test has.
func Python(t *testing.T, variable, library string, env ...string) *Program {
	t.Helper()
	interpreter := os.Getenv(variable)
	if interpreter == "" {
		t.Skipf("%s isn't set: the path of a Python with %s, such as the one that .ci/servers.sh installs", variable, library)
	}
	return &Program{t, interpreter, env}
}

// patience is more than the programs have.
const patience = time.Minute

// Run runs Python and returns what it has printed.
func (p *Program) Run(in []byte, args ...string) []byte {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), p.interpreter, args...)
	cmd.Env = append(append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1"), p.env...)
	cmd.Stdin = bytes.NewReader(in)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	late := time.AfterFunc(patience, func() { _ = cmd.Cancel() })
	defer late.Stop()
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("python %q: %v\n%s", args, err, stderr.String())
	}
	return out
}

// Send publishes messages.
func (p *Program) Send(to string, lines ...Line) {
	p.t.Helper()
	p.Run(p.Encode(lines...), script, "send", to)
}

// Receive takes n messages.
func (p *Program) Receive(from string, n int) []Line {
	p.t.Helper()
	return p.Decode(p.Run(nil, script, "receive", from, fmt.Sprint(n)), n)
}

// Encode returns messages as a program reads them.
func (p *Program) Encode(lines ...Line) []byte {
	p.t.Helper()
	var in bytes.Buffer
	for _, l := range lines {
		if l.Body == nil {
			l.Body = []byte{} // null isn't base64
		}
		if err := json.NewEncoder(&in).Encode(l); err != nil {
			p.t.Fatal(err)
		}
	}
	return in.Bytes()
}

// Decode reads n messages that a program has printed.
func (p *Program) Decode(out []byte, n int) []Line {
	p.t.Helper()
	dec := json.NewDecoder(bytes.NewReader(out))
	lines := make([]Line, n)
	for i := range lines {
		if err := dec.Decode(&lines[i]); err != nil {
			p.t.Fatalf("line %d of %d: %v", i, n, err)
		}
		for k, v := range lines[i].Attributes {
			if b, ok := v.(map[string]any); ok {
				raw, err := base64.StdEncoding.DecodeString(fmt.Sprint(b["b64"]))
				if err != nil {
					p.t.Fatalf("attribute %s: %v", k, err)
				}
				lines[i].Attributes[k] = raw
			}
		}
	}
	return lines
}
