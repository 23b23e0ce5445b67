package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// alarms are timers that nobody uses now. The runtime's own timers are late by up
// to a millisecond when a process has nothing else to do, as it sleeps in whole
// ones; that's a fifth of the latency which is added here. A timer of the kernel
// wakes it like a connection does: within 0.1 ms.
var alarms = sync.Pool{}

// pause sleeps, precisely. It doesn't end early when ctx does, as it's short, but
// says so.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	a, ok := alarms.Get().(*alarm)
	if !ok {
		var err error
		if a, err = newAlarm(); err != nil {
			return err
		}
	}
	if err := a.sleep(d); err != nil {
		return fmt.Errorf("timer: %w", err)
	}
	alarms.Put(a)
	return ctx.Err()
}

// alarm is a timer of the kernel. What's dropped is closed by the finalizer of its
// file.
type alarm struct {
	fd   int
	file *os.File
}

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("timer: %w", err)
	}
	return &alarm{fd: fd, file: os.NewFile(uintptr(fd), "timerfd")}, nil
}

func (a *alarm) sleep(d time.Duration) error {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(d.Nanoseconds())}
	if err := unix.TimerfdSettime(a.fd, 0, &spec, nil); err != nil {
		return err
	}
	var expired [8]byte
	_, err := a.file.Read(expired[:])
	return err
}
