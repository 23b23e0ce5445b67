package main

import (
	"io"
	"strings"
	"testing"
)

func TestAHundredQueuesGiveFigures(t *testing.T) {
	t.Parallel()
	o := brief()
	o.only = "hundred"
	o.server = &sqsServer{endpoint: sqsEndpoint(t)}
	r, err := measure(o, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for table, rows := range map[string]map[string][]string{
		"hundred-idle, 5 ms per call":     {oursName: {"queues", "peak MiB", "goroutines"}},
		"hundred-busy, handlers of 20 ms": {"all are well": {hundredOthers}, "one blocked, one failing": {hundredOthers}},
		"hundred-busy, no-op handlers":    {"all are well": {hundredOthers}, "one blocked, one failing": {hundredOthers}},
		"hundred-ensure, 20 ms per call":  {"create": {"seconds", "queues"}, "plan": {"seconds"}, "ensure": {"seconds", "requests/queue"}},
		"hundred-redrive":                 {"memory": {"seconds"}, "SQS, 5 ms per call": {"seconds", "sent/request", "removed/request"}},
	} {
		for row, columns := range rows {
			for _, f := range columns {
				if v := r.Figures[table][row][f]; v <= 0 {
					t.Errorf("%s, %s: %s is %v", table, row, f, v)
				}
			}
		}
	}
	if n := r.Figures["hundred-idle, 5 ms per call"][oursName]["queues"]; n != 120 {
		t.Errorf("%v queues", n)
	}
	var out strings.Builder
	r.print(&out)
	if len(r.Targets) != 8 {
		t.Errorf("%d targets are reported, not 8", len(r.Targets))
	}
	for _, tg := range r.Targets {
		if !strings.Contains(out.String(), tg.Name) {
			t.Errorf("the report says nothing about %q", tg.Name)
		}
	}
}
