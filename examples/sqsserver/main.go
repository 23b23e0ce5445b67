// Command sqsserver serves the Amazon SQS server of package sqstest to programs in
// any language, for development and tests. Its queues are in memory and are gone
// when it ends.
//
//	go run ./examples/sqsserver -addr 127.0.0.1:9324 -queue orders,orders-dlq,payments.fifo
//
// Point an SDK at it with AWS_ENDPOINT_URL_SQS=http://127.0.0.1:9324, any
// credentials, and the region us-east-1. It speaks the AWS JSON protocol, as all
// SDKs of today do, and checks no permissions: don't let others reach it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "sqsserver:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("sqsserver", flag.ContinueOnError)
	flags.SetOutput(stderr)
	addr := flags.String("addr", "127.0.0.1:9324", "the address to listen on")
	queues := flags.String("queue", "", "queues to create, with commas between them; a name that ends in .fifo makes a FIFO queue")
	latency := flags.Duration("latency", 0, "how much longer each call takes")
	account := flags.String("account", "", "the account in URLs and ARNs: twelve digits (default 000000000000)")
	region := flags.String("region", "", "the region in ARNs (default us-east-1)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	server := sqstest.New(&sqstest.Options{Region: *region, Account: *account})
	defer server.Close()
	endpoint, err := server.Start(*addr)
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(*queues, ",") {
		if name == "" {
			continue
		}
		if err := create(ctx, server.Client(), name); err != nil {
			return err
		}
	}
	server.SetLatency(*latency)
	if _, err := fmt.Fprintln(stdout, "sqsserver: listening on", endpoint); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func create(ctx context.Context, client *awssqs.Client, name string) error {
	in := &awssqs.CreateQueueInput{QueueName: &name}
	if strings.HasSuffix(name, ".fifo") {
		in.Attributes = map[string]string{"FifoQueue": "true"}
	}
	if _, err := client.CreateQueue(ctx, in); err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	return nil
}
