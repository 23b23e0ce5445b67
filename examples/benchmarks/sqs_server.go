package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"

	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// sqsServer is what's measured on. It's started when it's first needed; url may be
// called concurrently.
type sqsServer struct {
	endpoint string // of a server that's there already; empty: one is started

	mu      sync.Mutex
	process *exec.Cmd
	input   io.Closer
}

// serveArg makes this program an SQS server: see start.
const serveArg = "sqs-serve"

func (s *sqsServer) url() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.endpoint == "" {
		if err := s.start(); err != nil {
			return "", fmt.Errorf("SQS server: %w", err)
		}
	}
	return s.endpoint, nil
}

// start runs this program once more, as a server: a process of its own, so that
// its allocations and CPU time aren't the contenders'. It ends with its input,
// also when this process is killed.
func (s *sqsServer) start() error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	p := exec.Command(program, serveArg)
	p.Stderr = os.Stderr
	in, err := p.StdinPipe()
	if err != nil {
		return err
	}
	out, err := p.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.Start(); err != nil {
		return err
	}
	s.process, s.input = p, in
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return errorsFirst(s.stop(), err)
	}
	s.endpoint = strings.TrimSpace(line)
	return nil
}

func (s *sqsServer) stop() error {
	if s.process == nil {
		return nil
	}
	err := s.input.Close()
	err = errorsFirst(s.process.Wait(), err)
	s.process = nil
	return err
}

// serve is an SQS server until in ends. Its URL is the first line of out.
func serve(in io.Reader, out io.Writer) error {
	s := sqstest.New(nil)
	defer s.Close()
	endpoint, err := s.Start("127.0.0.1:0")
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, endpoint); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return err
}
