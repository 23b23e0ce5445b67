package sqs_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// python names a Python with boto3 for the tests of interop. Where it's set they
// fail if it can't be used.
const python = "ANYQUEUE_TEST_PYTHON"

// line is a message as sqs/interop/interop.py reads and writes it.
type line struct {
	ID         string         `json:"id,omitempty"`
	Body       []byte         `json:"body"`
	Attributes map[string]any `json:"attributes,omitempty"`
	Group      string         `json:"group,omitempty"`
}

// onServersWithPython runs a test on every server that listens, against the program
// in Python.
func onServersWithPython(t *testing.T, test func(t *testing.T, s *server, run pythonProgram)) {
	t.Helper()
	t.Parallel()
	interpreter := os.Getenv(python)
	if interpreter == "" {
		t.Skipf("%s isn't set: the path of a Python with boto3, such as the one that .ci/servers.sh installs for LocalStack", python)
	}
	out, err := exec.CommandContext(t.Context(), interpreter, "-c", "import boto3; print(boto3.__version__)").CombinedOutput()
	require.NoError(t, err, "%s has no boto3: %s", interpreter, out)
	run := func(t *testing.T, s *server) {
		env := []string{"AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test"}
		if s.name == "AWS" {
			env = nil // what the environment says
		} else if endpoint := s.client.Options().BaseEndpoint; endpoint != nil {
			env = append(env, "AWS_ENDPOINT_URL_SQS="+*endpoint, "NO_PROXY=127.0.0.1")
		}
		// boto3 doesn't know AWS_REGION.
		env = append(env, "AWS_DEFAULT_REGION="+s.client.Options().Region, "PYTHONDONTWRITEBYTECODE=1")
		test(t, s, pythonProgram{t, interpreter, env})
	}
	t.Run("sqstest", func(t *testing.T) {
		t.Parallel()
		local := sqstest.New(nil)
		t.Cleanup(local.Close)
		endpoint, err := local.Start("127.0.0.1:0")
		require.NoError(t, err)
		run(t, newServer("sqstest", newClient(endpoint)))
	})
	for _, at := range []struct{ name, variable string }{{"LocalStack", localStack}, {"ElasticMQ", elasticMQ}} {
		t.Run(at.name, func(t *testing.T) {
			t.Parallel()
			run(t, newServer(at.name, clientFor(t, at.variable)))
		})
	}
	onRealCloud(t, run)
}

type pythonProgram struct {
	t           *testing.T
	interpreter string
	env         []string
}

func (p pythonProgram) run(in []byte, args ...string) []byte {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), p.interpreter, append([]string{"interop/interop.py"}, args...)...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Stdin = bytes.NewReader(in)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(p.t, err, stderr.String())
	return out
}

func (p pythonProgram) send(url string, lines ...line) {
	p.t.Helper()
	var in bytes.Buffer
	for _, l := range lines {
		require.NoError(p.t, json.NewEncoder(&in).Encode(l))
	}
	p.run(in.Bytes(), "send", url)
}

func (p pythonProgram) receive(url string, n int) []line {
	p.t.Helper()
	dec := json.NewDecoder(bytes.NewReader(p.run(nil, "receive", url, fmt.Sprint(n))))
	out := make([]line, n)
	for i := range out {
		require.NoError(p.t, dec.Decode(&out[i]))
		for k, v := range out[i].Attributes {
			if b, ok := v.(map[string]any); ok {
				raw, err := base64.StdEncoding.DecodeString(b["b64"].(string))
				require.NoError(p.t, err)
				out[i].Attributes[k] = raw
			}
		}
	}
	return out
}

// crossing are the messages that go over the border, both ways.
var crossing = []struct {
	name  string
	body  []byte
	id    string
	attrs map[string]string
}{
	{"text", []byte("hello"), "", nil},
	{"text of many kinds", []byte("ä € 😀 <xml/> \t\r\n \"q\" \\ \u2028"), "", map[string]string{"k": "ä€😀 \n\t", "With.Dots_and-dashes.9": "v"}},
	{"bytes", []byte{0, 1, 2, 0xfe, 0xff}, "", nil},
	{"every byte", everyByte(), "id-1", map[string]string{"k": "v"}},
	{"a NUL in a text", []byte("a\x00b"), "", nil},
	{"what Unicode has and XML hasn't", []byte("a\ufffeb\uffff"), "", nil},
	{"half a rune", []byte("ä")[:1], "", nil},
	{"nothing", nil, "", nil},
	{"an ID of its own", []byte("m"), "order/17 ä", map[string]string{"k": "v"}},
	{"JSON", []byte(`{"a":[1,2.50,"x"]}`), "", map[string]string{"content-type": "application/json"}},
	{"base64 that's only text", []byte("aGVsbG8="), "", nil},
	{"200 KiB", bytes.Repeat([]byte{0x80, 'x'}, 100<<10), "", nil},
	{"nine attributes and an ID", []byte("m"), "nine", nine()},
}

func everyByte() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

func nine() map[string]string {
	out := map[string]string{}
	for i := range 9 {
		out[fmt.Sprint("a", i)] = fmt.Sprint("value ", i)
	}
	return out
}

func TestServerPythonReadsWhatIsPublished(t *testing.T) {
	onServersWithPython(t, func(t *testing.T, s *server, py pythonProgram) {
		q := s.fresh(t, "python", nil)
		for _, c := range crossing {
			require.NoError(t, q.Publish(t.Context(), &queue.Message{ID: c.id, Body: c.body, Attributes: c.attrs}), c.name)
		}
		got := py.receive(q.Capabilities().Address, len(crossing))
		for _, c := range crossing {
			i := slices.IndexFunc(got, func(l line) bool { return bytes.Equal(l.Body, c.body) && (c.id == "" || l.ID == c.id) })
			if !assert.GreaterOrEqual(t, i, 0, "%s didn't come", c.name) {
				continue
			}
			want := map[string]any{}
			for k, v := range c.attrs {
				want[k] = v
			}
			assert.Equal(t, want, got[i].Attributes, c.name)
			assert.NotEmpty(t, got[i].ID, c.name)
		}
	})
}

func TestServerPythonReadsAttributesThatSQSCannotCarry(t *testing.T) {
	onServersWithPython(t, func(t *testing.T, s *server, py pythonProgram) {
		q := s.fresh(t, "python", nil)
		attrs := map[string]string{"empty": "", "control": "a\x01b", "plain": "v"}
		require.NoError(t, q.Publish(t.Context(), &queue.Message{Body: []byte("m"), Attributes: attrs}))
		got := py.receive(q.Capabilities().Address, 1)[0]
		assert.Equal(t, map[string]any{"empty": "", "control": "a\x01b", "plain": "v"}, got.Attributes)
	})
}

func TestServerWhatPythonSendsIsConsumed(t *testing.T) {
	onServersWithPython(t, func(t *testing.T, s *server, py pythonProgram) {
		q := s.fresh(t, "python", nil)
		var lines []line
		for _, c := range crossing {
			l := line{ID: c.id, Body: c.body, Attributes: map[string]any{}}
			if l.Body == nil {
				l.Body = []byte{}
			}
			for k, v := range c.attrs {
				l.Attributes[k] = v
			}
			lines = append(lines, l)
		}
		py.send(q.Capabilities().Address, lines...)
		got := receive(t, q, len(crossing))
		for _, c := range crossing {
			i := slices.IndexFunc(got, func(d *queue.Delivery) bool { return bytes.Equal(d.Body, c.body) && (c.id == "" || d.ID == c.id) })
			if !assert.GreaterOrEqual(t, i, 0, "%s didn't come", c.name) {
				continue
			}
			d := got[i]
			assert.Len(t, d.Attributes, len(c.attrs), c.name)
			for k, v := range c.attrs {
				assert.Equal(t, v, d.Attributes[k], "%s: %s", c.name, k)
			}
			if c.id == "" {
				assert.Equal(t, d.BrokerID, d.ID, c.name)
			}
			assert.WithinDuration(t, time.Now(), d.EnqueuedAt, time.Minute, c.name)
		}
	})
}

func TestServerBinaryAttributesFromPython(t *testing.T) {
	onServersWithPython(t, func(t *testing.T, s *server, py pythonProgram) {
		q, next := s.fresh(t, "python", nil), s.fresh(t, "next", nil)
		raw := []byte{0, 0xff, 'x'}
		py.send(q.Capabilities().Address, line{Body: []byte("m"), Attributes: map[string]any{"b": map[string]any{"b64": raw}, "s": "text"}})
		d := receive(t, q, 1)[0]
		assert.Equal(t, map[string]string{"b": string(raw), "s": "text"}, d.Attributes)
		// Forwarded, it's still bytes to Python.
		require.NoError(t, next.Publish(t.Context(), &d.Message))
		assert.Equal(t, map[string]any{"b": raw, "s": "text"}, py.receive(next.Capabilities().Address, 1)[0].Attributes)
	})
}

func TestServerKeysOfAFIFOQueueAreGroupsToPython(t *testing.T) {
	onServersWithPython(t, func(t *testing.T, s *server, py pythonProgram) {
		q := s.fresh(t, "python", &queue.QueueSpec{Ordered: true})
		url := q.Capabilities().Address
		for i := range 3 {
			require.NoError(t, q.Publish(t.Context(), keyed("customer-1", fmt.Sprint("go", i))))
		}
		var bodies []string
		for _, l := range py.receive(url, 3) {
			bodies = append(bodies, string(l.Body))
			assert.Equal(t, "customer-1", l.Group)
		}
		assert.Equal(t, []string{"go0", "go1", "go2"}, bodies)

		py.send(url, line{Body: []byte("py0"), Group: "customer-2"}, line{Body: []byte("py1"), Group: "customer-2"})
		for i := range 2 {
			d := receive(t, q, 1)[0]
			assert.Equal(t, fmt.Sprint("py", i), string(d.Body))
			assert.Equal(t, "customer-2", d.OrderingKey)
			settle(t, q, queue.Settlement{Delivery: d, Kind: queue.Ack})
		}
	})
}
