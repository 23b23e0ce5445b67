package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// emulator is what's measured on: Google's own. It's started when it's first
// needed, unless there is one; host may be called concurrently.
type emulator struct {
	address string // host:port of one that's there already
	servers string // the script that starts one otherwise: .ci/servers.sh
	dir     string // where the script keeps what it starts; empty: a folder of our own

	mu    sync.Mutex
	owned bool // it was started here
	made  bool // the folder too
}

var errNoEmulator = errors.New("no Pub/Sub emulator: name one with -pubsub-emulator, or use .ci/bench, which starts one")

func (e *emulator) host() (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.address != "" {
		return e.address, nil
	}
	if e.servers == "" {
		return "", errNoEmulator
	}
	if e.dir == "" {
		dir, err := os.MkdirTemp("", "bench-emulator-")
		if err != nil {
			return "", err
		}
		e.dir, e.made = dir, true
	}
	out, err := e.script("start", e.dir, "pubsub")
	if err != nil {
		return "", err
	}
	_, address, ok := strings.Cut(out, "ANYQUEUE_TEST_PUBSUB_EMULATOR=")
	address, _, _ = strings.Cut(address, "\n")
	if !ok {
		return "", fmt.Errorf("%s didn't say where the Pub/Sub emulator is: %q", e.servers, out)
	}
	e.address, e.owned = address, true
	return e.address, nil
}

// emulatorJava gives Java room for what the emulator keeps: a million messages of a
// kilobyte take 2 GB, and when that's scarce all time goes to the garbage collector;
// and one of those that doesn't run beside what's measured. It prevails over the
// script's -Xmx.
const emulatorJava = "_JAVA_OPTIONS=-Xms4g -Xmx4g -Xmn512m -XX:+UseParallelGC"

func (e *emulator) script(args ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := exec.Command("bash", append([]string{e.servers}, args...)...)
	cmd.Env = append(os.Environ(), emulatorJava)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", e.servers, strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

// check tells whether there's one, or one can be started. It's stopped again, so that
// it doesn't disturb what's measured before.
func (e *emulator) check() error {
	address, err := e.host()
	if err == nil {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", address, emulatorPatience); err == nil {
			err = c.Close()
		} else {
			err = fmt.Errorf("Pub/Sub emulator: %w", err)
		}
	}
	return errorsFirst(err, e.stop())
}

// emulatorPatience is short: clients would try for a minute.
const emulatorPatience = 5 * time.Second

// stop ends what was started here; host then starts another one.
func (e *emulator) stop() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.owned {
		return nil
	}
	e.address, e.owned = "", false
	_, err := e.script("stop", e.dir)
	if e.made {
		err = errorsFirst(err, os.RemoveAll(e.dir))
		e.dir, e.made = "", false
	}
	return err
}
