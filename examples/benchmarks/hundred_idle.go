package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
)

// hundredArg makes this program one that runs a hundred and twenty idle queues: see
// measureHundredIdle.
const hundredArg = "hundred-idle"

// measureHundredIdle has a program of its own consume a hundred and twenty queues on SQS
// that have no messages: its memory and its CPU time are those of that alone.
func measureHundredIdle(o options, r *report) error {
	endpoint, err := o.server.url()
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	var out, errs bytes.Buffer
	cmd := exec.Command(program, hundredArg, endpoint, o.hundredIdle.String())
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("a program apart: %w: %s", err, errs.String())
	}
	f := figures{}
	if err := json.Unmarshal(out.Bytes(), &f); err != nil {
		return err
	}
	r.add("hundred-idle, 5 ms per call", map[string]figures{oursName: f})
	for _, t := range []struct {
		name, unit, figure string
		want               float64
	}{
		{"120 idle queues on SQS, requests a minute of each", "", "requests/minute/queue", 3.1},
		{"120 idle queues on SQS, memory of the process", "MiB", "peak MiB", 80},
		{"120 idle queues on SQS, CPU", "% of a core", "CPU %", 2},
	} {
		r.target(target{Name: t.name, Unit: t.unit, Want: t.want, Got: f[t.figure], Figure: f[t.figure]})
	}
	return nil
}

// oneHundred is the program apart. args follow hundredArg.
func oneHundred(args []string, out io.Writer) (err error) {
	if len(args) != 2 {
		return fmt.Errorf("%s needs an endpoint and a duration", hundredArg)
	}
	window, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	l := newLink(sqsIdleLatency)
	h, err := openHundred(sqs.New(sqsClient(args[0], l), nil), nil)
	if err != nil {
		return err
	}
	if err := h.run(func(string) queue.Handler {
		return func(context.Context, *queue.Delivery) error { return nil }
	}); err != nil {
		return err
	}
	defer func() { err = errorsFirst(err, h.close()) }()
	time.Sleep(window / 10) // until all of them poll
	cpu, err := cpuTime()
	if err != nil {
		return err
	}
	begun, sent := time.Now(), l.sum().requests
	time.Sleep(window)
	used, err := cpuTime()
	if err != nil {
		return err
	}
	// A poll takes 20 seconds and more, so that a minute has the beginnings of three.
	lasted := time.Since(begun)
	requests := l.sum().requests - sent
	mib, err := peakMiB()
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(figures{
		"queues":                float64(len(h.work)),
		"requests/minute/queue": float64(requests) / lasted.Minutes() / float64(len(h.work)),
		"CPU %":                 100 * (used - cpu).Seconds() / lasted.Seconds(),
		"peak MiB":              mib,
		"goroutines":            float64(runtime.NumGoroutine()),
	})
}

// peakMiB is the most memory that this process has had, as far as the system tells;
// otherwise what it has got from it.
func peakMiB() (float64, error) {
	// Not from getrusage, where it includes the program that has started this one.
	if status, err := os.ReadFile("/proc/self/status"); err == nil {
		for line := range strings.Lines(string(status)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
				kib, err := strconv.ParseFloat(f[1], 64)
				return kib / 1024, err
			}
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.Sys) / (1 << 20), nil
}
