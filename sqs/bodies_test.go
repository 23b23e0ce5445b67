package sqs_test

import (
	"io"
	"net/http"
	"testing"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
)

// keeper keeps the bodies of requests, as the writing half of a connection does.
type keeper struct {
	awssqs.HTTPClient
	bodies []io.Reader
}

func (k *keeper) Do(r *http.Request) (*http.Response, error) {
	if r.Header.Get("X-Amz-Target") == "AmazonSQS.ReceiveMessage" {
		k.bodies = append(k.bodies, r.Body)
	}
	return k.HTTPClient.Do(r)
}

// net/http looks for a body's end once more after its last write, which may be
// after the SDK has closed it. An error there closes the connection that has the
// answer on it.
func TestTheEndOfABodyIsFoundAlsoAfterTheAnswerHasCome(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.answers["ReceiveMessage"] = bringing("m", nil)
	options := f.client().Options()
	k := &keeper{HTTPClient: options.HTTPClient}
	options.HTTPClient = k
	q, err := sqs.New(awssqs.New(options), nil).Open(t.Context(), "orders", nil)
	require.NoError(t, err)
	ds, err := q.Receive(t.Context(), 1)
	require.NoError(t, err)
	require.Len(t, ds, 1)
	require.NotEmpty(t, k.bodies)
	for _, b := range k.bodies {
		n, err := io.Copy(io.Discard, b)
		assert.NoError(t, err)
		assert.Zero(t, n)
	}
	require.NoError(t, q.Settle(t.Context(), queue.Settlement{Delivery: ds[0]}))
	require.NoError(t, q.Close(t.Context()))
}
