package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
)

// testEmulator is the one that the environment names.
func testEmulator(t *testing.T) *emulator {
	t.Helper()
	address := os.Getenv("ANYQUEUE_TEST_PUBSUB_EMULATOR")
	if address == "" {
		t.Skip("ANYQUEUE_TEST_PUBSUB_EMULATOR isn't set: no Pub/Sub emulator to measure on (.ci/servers.sh starts one)")
	}
	return &emulator{address: address}
}

func TestEveryMeasurementOnPubSubGivesFigures(t *testing.T) {
	t.Parallel()
	o := brief()
	o.only, o.emulator = "pubsub", testEmulator(t)
	r, err := measure(o, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	positive := map[string][]string{
		pubsubPublishName: {"messages/s", "requests/message", "allocs/message", "p50 ms"},
		pubsubConsumeName: {"messages/s", "requests/message", "allocs/message"},
		pubsubLoneName:    {"p50 ms", "p99 ms"},
		pubsubManyName:    {"p50 ms", "requests/call"},
		pubsubTrickleName: {"requests/message", "p50 ms"},
	}
	tables := map[string]int{}
	for table, fs := range r.Figures {
		m, _, _ := strings.Cut(table, ",")
		tables[m]++
		cs := o.pubsubContenders(m)
		if len(fs) != len(cs) || len(cs) == 0 {
			t.Errorf("%s has %d systems, not %d", table, len(fs), len(cs))
		}
		for _, c := range cs {
			for _, f := range positive[m] {
				if v := fs[c.name][f]; v <= 0 {
					t.Errorf("%s of %s: %s is %v", table, c.name, f, v)
				}
			}
		}
	}
	for m := range positive {
		if want := map[string]int{pubsubConsumeName: 2}[m]; tables[m] != max(want, 1) {
			t.Errorf("%d tables of %s", tables[m], m)
		}
	}
	var out strings.Builder
	r.print(&out)
	if len(r.Targets) != 9 {
		t.Errorf("%d targets are reported, not 9", len(r.Targets))
	}
	for _, tg := range r.Targets {
		if !strings.Contains(out.String(), tg.Name) {
			t.Errorf("the report says nothing about %q", tg.Name)
		}
	}
	if !strings.Contains(out.String(), o.emulator.address) {
		t.Error("the report doesn't say which emulator was measured on")
	}
}

// What's compared must be the same whoever has published it.
func TestEveryoneOnPubSubHandlesEveryMessageOnce(t *testing.T) {
	t.Parallel()
	o := brief()
	o.emulator = testEmulator(t)
	for _, c := range o.pubsubContenders(pubsubConsumeName) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f, err := pubsubConsume(o, c, 0)
			if err != nil {
				t.Fatal(err)
			}
			if f["received again"] != 0 {
				t.Errorf("%v messages came twice", f["received again"])
			}
		})
	}
}

func TestConsumingEndsWhenItsTimeIsUp(t *testing.T) {
	t.Parallel()
	o := brief()
	o.emulator = testEmulator(t)
	o.pubsubMessages, o.pubsubConsume = 2000, 200*time.Millisecond
	for _, c := range o.pubsubContenders(pubsubConsumeName) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			// 100 handlers can't do more than 200 of them in this time.
			f, err := pubsubConsume(o, c, 100*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			if v := f["messages/s"]; v <= 0 || v > 2000 {
				t.Errorf("%v messages a second", v)
			}
		})
	}
}

func TestWithoutAnEmulatorNothingIsMeasured(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]*emulator{
		"no address, no script": {},
		"nobody there":          {address: "127.0.0.1:1"},
		"no such script":        {servers: "nowhere/servers.sh", dir: t.TempDir()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := brief()
			o.only, o.emulator = "middleware,pubsub-lone", e
			var out strings.Builder
			if _, err := measure(o, &out); err == nil {
				t.Error("no error")
			}
			if out.Len() > 0 {
				t.Errorf("measured first: %q", out.String())
			}
		})
	}
}

func TestAnEmulatorIsStartedOnceAndStopped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script, log := filepath.Join(dir, "servers.sh"), filepath.Join(dir, "log")
	content := `echo "$@" >>` + log + `; case $1 in start) echo "export ANYQUEUE_TEST_PUBSUB_EMULATOR=127.0.0.1:1"; echo "export ANYQUEUE_TEST_OTHER=2" ;; esac`
	if err := os.WriteFile(script, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	e := &emulator{servers: script, dir: dir}
	if err := e.stop(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if address, err := e.host(); err != nil || address != "127.0.0.1:1" {
			t.Errorf("got %q, %v", address, err)
		}
	}
	if err := errors.Join(e.stop(), e.stop()); err != nil {
		t.Error(err)
	}
	if _, err := e.host(); err != nil {
		t.Error(err)
	}
	got, err := os.ReadFile(log)
	if want := "start " + dir + " pubsub\nstop " + dir + "\nstart " + dir + " pubsub\n"; err != nil || string(got) != want {
		t.Errorf("called with %q, %v", got, err)
	}
}

func TestWhatAScriptSaysOfItsFailureIsReported(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		"echo no Java here >&2; exit 1": "no Java here",
		"echo ready":                    "didn't say where",
	} {
		script := filepath.Join(t.TempDir(), "servers.sh")
		if err := os.WriteFile(script, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		e := &emulator{servers: script}
		if _, err := e.host(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", content, err)
		}
		if err := e.stop(); err != nil {
			t.Error(err)
		}
	}
}

func TestAMeterCountsWhatGoesOverIt(t *testing.T) {
	t.Parallel()
	received := make([]*pubsubpb.ReceivedMessage, 3)
	for name, c := range map[string]struct {
		method     string
		req, reply any
		err        error
		want       calls
	}{
		"published":     {methodPublish, &pubsubpb.PublishRequest{Messages: make([]*pubsubpb.PubsubMessage, 2)}, &pubsubpb.PublishResponse{}, nil, calls{1, 2}},
		"pulled":        {methodPull, &pubsubpb.PullRequest{}, &pubsubpb.PullResponse{ReceivedMessages: received}, nil, calls{1, 3}},
		"not pulled":    {methodPull, &pubsubpb.PullRequest{}, &pubsubpb.PullResponse{ReceivedMessages: received}, io.EOF, calls{1, 0}},
		"acknowledged":  {methodAck, &pubsubpb.AcknowledgeRequest{AckIds: []string{"a", "b"}}, nil, nil, calls{1, 2}},
		"extended":      {methodModify, &pubsubpb.ModifyAckDeadlineRequest{AckIds: []string{"a"}}, nil, nil, calls{1, 1}},
		"anything else": {"GetTopic", &pubsubpb.GetTopicRequest{}, &pubsubpb.Topic{}, nil, calls{1, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMeter()
			full := "/google.pubsub.v1.Something/" + c.method
			err := m.unary(t.Context(), full, c.req, c.reply, nil, func(_ context.Context, method string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
				if method != full {
					t.Errorf("called %s", method)
				}
				return c.err
			})
			if !errors.Is(err, c.err) {
				t.Errorf("got %v", err)
			}
			if got := m.sum(c.method); got != c.want || m.sum() != c.want {
				t.Errorf("counted %+v, in all %+v, not %+v", got, m.sum(), c.want)
			}
			if asked := !m.firstReceive().IsZero(); asked != (c.method == methodPull) {
				t.Errorf("it was asked for messages: %v", asked)
			}
		})
	}
}

// answers is a stream's other end.
type answers struct {
	grpc.ClientStream
	messages []int // in each answer
}

func (*answers) SendMsg(any) error { return nil }

func (a *answers) RecvMsg(msg any) error {
	if len(a.messages) == 0 {
		return io.EOF
	}
	msg.(*pubsubpb.StreamingPullResponse).ReceivedMessages = make([]*pubsubpb.ReceivedMessage, a.messages[0])
	a.messages = a.messages[1:]
	return nil
}

func TestAMeterCountsWhatGoesOverAStream(t *testing.T) {
	t.Parallel()
	m := newMeter()
	s, err := m.stream(t.Context(), nil, nil, "/google.pubsub.v1.Subscriber/StreamingPull", func(context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, ...grpc.CallOption) (grpc.ClientStream, error) {
		return &answers{messages: []int{2, 3}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*pubsubpb.StreamingPullRequest{
		{Subscription: "s"}, {AckIds: []string{"a", "b"}}, {ModifyDeadlineAckIds: []string{"c"}},
	} {
		if err := s.SendMsg(r); err != nil {
			t.Fatal(err)
		}
	}
	for err == nil {
		err = s.RecvMsg(&pubsubpb.StreamingPullResponse{})
	}
	if !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	for method, want := range map[string]calls{methodStream: {1, 5}, methodAck: {1, 2}, methodModify: {1, 1}} {
		if got := m.sum(method); got != want {
			t.Errorf("%s: counted %+v, not %+v", method, got, want)
		}
	}
	if m.firstReceive().IsZero() {
		t.Error("nobody asked for messages")
	}
}

func TestATrickleIsSpreadOverItsTime(t *testing.T) {
	t.Parallel()
	var tenths [10]int // of a share, and how many messages are due in them
	for i := range 100 {
		after := unevenly(i) - evenly(i)
		if after < 0 || after >= evenly(1) {
			t.Fatalf("message %d is due %v after its share begins", i, after)
		}
		tenths[10*after/evenly(1)]++
	}
	for i, n := range tenths {
		if n < 5 || n > 15 {
			t.Errorf("%d messages in tenth %d", n, i)
		}
	}
}
