// Command blast sends a mailing to the customers of a list, through three
// queues: one message makes the list, one message per customer sends the mail,
// and one tells what happened. The services that it calls are fakes that fail as
// real ones do; what became of each customer is computed from their logs.
//
//	go run ./examples/blast
//
// It ends with a line of JSON, and with exit code 0 only when no customer was
// lost. QUEUE_BACKEND says where the queues are: here in memory, there in
// LocalStack, or in AWS when no endpoint is set, or in Google's emulator, or in
// Google Cloud when no emulator is named. QUEUE_PREFIX begins their names.
//
//	QUEUE_BACKEND=sqs AWS_ENDPOINT_URL_SQS=http://127.0.0.1:4566 go run ./examples/blast
//	QUEUE_BACKEND=pubsub PUBSUB_EMULATOR_HOST=127.0.0.1:8085 go run ./examples/blast
//
// With queues that they can share, the parts can be processes of their own, the
// workers as many as one likes. Those may die at any time and be started again:
//
//	-role parties      orders the blast; the third parties, the database, the judge
//	-role list-sender
//	-role sender
//	-role logger
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/anyqueue/anyqueue/examples/internal/backends"
	"github.com/anyqueue/anyqueue/memory"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes.
const (
	exitOK    = 0
	exitLost  = 1 // customers were lost, or something else went wrong
	exitUsage = 2
)

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	opts, err := parseOptions(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage
	}
	p := &program{opts: opts, env: os.LookupEnv, backends: backends.All(memory.New(nil), os.LookupEnv), log: newLogger(stderr, opts.verbose), time: newTimeline(stdout)}
	lost, err := p.run(ctx)
	if err == nil {
		err = p.time.failed()
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "blast:", err) // nowhere else to complain
		return exitLost
	}
	if lost {
		return exitLost
	}
	return exitOK
}
