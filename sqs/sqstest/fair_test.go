package sqstest_test

import (
	"fmt"
	"testing"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestANoisyTenantWaitsForTheOthers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		inFlight int // of the noisy one
		want     []string
	}{
		"with 30 in flight": {30, []string{"quiet0", "quiet1", "nobody's", "noisy30", "noisy31"}},
		"with less":         {20, []string{"noisy20", "noisy21", "noisy22", "noisy23", "noisy24"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			virtually(t, nil, func(e *env) {
				url := e.create("q")
				send := func(tenant, body string) {
					in := &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: &body}
					if tenant != "" {
						in.MessageGroupId = &tenant
					}
					_, err := e.c.SendMessage(e.Context(), in)
					require.NoError(e, err)
				}
				for i := range 50 {
					send("noisy", fmt.Sprint("noisy", i))
				}
				send("quiet", "quiet0")
				send("quiet", "quiet1")
				send("", "nobody's")
				for range c.inFlight / 10 {
					assert.Len(e, e.receive(url), 10)
				}
				out, err := e.c.ReceiveMessage(e.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &url, MaxNumberOfMessages: 5})
				require.NoError(e, err)
				assert.Equal(e, c.want, bodies(out.Messages), "there's no order among tenants, and no lock")
			})
		})
	}
}
