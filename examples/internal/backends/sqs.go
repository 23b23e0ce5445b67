package backends

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
)

// fromEnvironment is replaced by sqs/awsclient as soon as that's there.
func fromEnvironment(lookup func(string) (string, bool)) queue.Backend { return &lazy{lookup: lookup} }

type lazy struct {
	lookup func(string) (string, bool)
	once   sync.Once
	b      *sqs.Backend
}

func (l *lazy) get() *sqs.Backend {
	l.once.Do(func() {
		env := func(names ...string) string {
			for _, n := range names {
				if v, _ := l.lookup(n); v != "" {
					return v
				}
			}
			return ""
		}
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConnsPerHost = 100
		o := awssqs.Options{
			Region:     env("AWS_REGION", "AWS_DEFAULT_REGION"),
			HTTPClient: &http.Client{Transport: t},
			Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
				c := aws.Credentials{AccessKeyID: env("AWS_ACCESS_KEY_ID"), SecretAccessKey: env("AWS_SECRET_ACCESS_KEY"), SessionToken: env("AWS_SESSION_TOKEN")}
				if !c.HasKeys() {
					return c, errors.New("no AWS credentials in the environment")
				}
				return c, nil
			}),
		}
		if url := env("AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL"); url != "" {
			o.BaseEndpoint = &url
		}
		l.b = sqs.New(awssqs.New(o), nil)
	})
	return l.b
}

func (l *lazy) System() string { return "aws_sqs" }
func (l *lazy) Open(ctx context.Context, name string, opts *queue.OpenOptions) (queue.Queue, error) {
	return l.get().Open(ctx, name, opts)
}
func (l *lazy) Ensure(ctx context.Context, name string, spec *queue.QueueSpec) (*queue.EnsureReport, error) {
	return l.get().Ensure(ctx, name, spec)
}
