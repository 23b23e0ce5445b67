package awsclient

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/anyqueue/anyqueue/queue"
	"github.com/anyqueue/anyqueue/sqs"
)

// Options are what's said by the program instead of the environment. The zero
// value leaves everything to the environment.
type Options struct {
	// Region, such as "eu-central-1". Default: AWS_REGION, or the profile's.
	Region string

	// Profile of the shared files. Default: AWS_PROFILE, or "default".
	Profile string

	// Endpoint is the URL of another server than AWS's, or of a VPC endpoint.
	// Default: AWS_ENDPOINT_URL_SQS, AWS_ENDPOINT_URL, or the profile's.
	Endpoint string

	// Load are further options of the SDK's config package. They win over the
	// rest; one that sets an HTTP client replaces the pool of this package.
	Load []func(*config.LoadOptions) error

	// SQS are the options of the backend. Default: those of sqs.New.
	SQS *sqs.Options
}

const (
	// idlePerHost is how many connections are kept: one for each long poll that
	// a process may have open.
	idlePerHost = 1024

	// What LocalStack's own tools use.
	standInRegion = "us-east-1"
	standInKey    = "test"
)

// New returns a client. It reads the environment and gets credentials, which may
// take requests, for as long as ctx allows; it makes no request to SQS. Nil
// options are the defaults.
//
// It fails with queue.ErrInvalid without a region, and with queue.ErrPermission
// without credentials.
func New(ctx context.Context, opts *Options) (*awssqs.Client, error) {
	if opts == nil {
		opts = &Options{}
	}
	client, err := build(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("awsclient: %w", err)
	}
	return client, nil
}

func build(ctx context.Context, opts *Options) (*awssqs.Client, error) {
	if opts.Endpoint != "" {
		if u, err := url.Parse(opts.Endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, &queue.InvalidError{Field: "Endpoint", Reason: fmt.Sprintf("%q isn't an http: or https: URL", opts.Endpoint)}
		}
	}
	load := []func(*config.LoadOptions) error{config.WithHTTPClient(pool())}
	if opts.Region != "" {
		load = append(load, config.WithRegion(opts.Region))
	}
	if opts.Profile != "" {
		load = append(load, config.WithSharedConfigProfile(opts.Profile))
	}
	cfg, err := config.LoadDefaultConfig(ctx, append(load, opts.Load...)...)
	if err != nil {
		return nil, err
	}
	endpoint := func(o *awssqs.Options) {
		if opts.Endpoint != "" {
			o.BaseEndpoint = &opts.Endpoint
		}
	}
	// Only the client works out which endpoint the environment means.
	if standIn(awssqs.NewFromConfig(cfg, endpoint).Options().BaseEndpoint) {
		if cfg.Region == "" {
			cfg.Region = standInRegion
		}
		if noneSet(cfg.Credentials) {
			cfg.Credentials = credentials.NewStaticCredentialsProvider(standInKey, standInKey, "")
		}
	}
	if cfg.Region == "" {
		return nil, &queue.InvalidError{Field: "Region", Reason: "there's none: set AWS_REGION, a region in the AWS profile, or Options.Region"}
	}
	if cfg.Credentials == nil {
		cfg.Credentials = aws.AnonymousCredentials{} // only Options.Load can have asked for that
	}
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil && !aws.IsCredentialsProvider(cfg.Credentials, aws.AnonymousCredentials{}) {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("getting AWS credentials: %w", context.Cause(ctx))
		}
		return nil, fmt.Errorf("%w: no AWS credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "+
			"or give the machine a role: %w", queue.ErrPermission, err)
	}
	return awssqs.NewFromConfig(cfg, endpoint), nil
}

// standIn reports whether an endpoint can't be AWS, which is never without TLS.
func standIn(endpoint *string) bool {
	if endpoint == nil {
		return false
	}
	u, err := url.Parse(*endpoint)
	return err == nil && u.Scheme == "http"
}

// noneSet reports whether only the role of an EC2 machine is left to ask: the last
// of the SDK's places.
func noneSet(p aws.CredentialsProvider) bool {
	return p == nil || aws.IsCredentialsProvider(p, (*ec2rolecreds.Provider)(nil))
}

// pool is an HTTP client for many long polls.
func pool() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConns = 0 // in all; there's one host
		t.MaxIdleConnsPerHost = idlePerHost
		t.MaxConnsPerHost = 0
		t.ResponseHeaderTimeout = 0
	})
}
