package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The test's own binary is the program when it's asked to.
const asProgram = "SQSSERVER_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Args = append(os.Args[:1], strings.Fields(os.Getenv(asProgram))...)
		main()
		return
	}
	os.Exit(m.Run())
}

func TestItServesUntilSIGTERM(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), asProgram+"=-addr 127.0.0.1:0 -queue orders,payments.fifo -account 123456789012 -region eu-west-1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	endpoint, ok := strings.CutPrefix(strings.TrimSpace(line), "sqsserver: listening on ")
	require.True(t, ok, line)

	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	client := awssqs.New(awssqs.Options{
		Region: "eu-west-1", BaseEndpoint: &endpoint, HTTPClient: &http.Client{Transport: tr},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "any", SecretAccessKey: "any"}, nil
		}),
	})
	list, err := client.ListQueues(t.Context(), &awssqs.ListQueuesInput{})
	require.NoError(t, err)
	assert.Equal(t, []string{endpoint + "/123456789012/orders", endpoint + "/123456789012/payments.fifo"}, list.QueueUrls)
	_, err = client.SendMessage(t.Context(), &awssqs.SendMessageInput{QueueUrl: &list.QueueUrls[0], MessageBody: aws.String("m")})
	require.NoError(t, err)
	receive := func() ([]string, error) {
		out, err := client.ReceiveMessage(t.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &list.QueueUrls[0], WaitTimeSeconds: 20})
		if err != nil {
			return nil, err
		}
		var bodies []string
		for _, m := range out.Messages {
			bodies = append(bodies, *m.Body)
		}
		return bodies, nil
	}
	bodies, err := receive()
	require.NoError(t, err)
	assert.Equal(t, []string{"m"}, bodies)

	// A poll is open when it's told to end: the poll gets an answer or, if it
	// hadn't arrived yet, finds nobody.
	polled := make(chan []string, 1)
	go func() {
		bodies, _ := receive()
		polled <- bodies
	}()
	begun := time.Now()
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait())
	assert.Empty(t, <-polled)
	assert.Less(t, time.Since(begun), 15*time.Second, "it doesn't wait for the poll's 20 seconds")
}

func TestWhatItRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ args, want string }{
		"a flag":     {"-colour red", "flag provided but not defined"},
		"an address": {"-addr nowhere", "missing port"},
		"a queue":    {"-addr 127.0.0.1:0 -queue a.b", "create a.b"},
		"an account": {"-account me", "sqstest.Options.Account"},
		"a rest":     {"orders", "unexpected argument"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := run(t.Context(), strings.Fields(c.args), io.Discard, io.Discard)
			require.ErrorContains(t, err, c.want)
		})
	}
}
