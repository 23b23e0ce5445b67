// Package awsclient makes a client of the AWS SDK for package sqs from what the
// environment says: variables, shared files and the machine's role, as every
// program of AWS does. It's the only package of this module that reads the
// environment, and stands apart because the SDK's own config package doubles the
// size of a small program: who has a client already needs package sqs alone.
//
//	b := awsclient.Backend(nil)
//	q, err := b.Open(ctx, "orders", nil)
//
// # What's read
//
// Whatever the SDK reads: AWS_REGION, AWS_PROFILE, AWS_ACCESS_KEY_ID and the others,
// the files config and credentials, web identity tokens, the roles of ECS, EKS
// and EC2. AWS_ENDPOINT_URL_SQS, or else AWS_ENDPOINT_URL, names another endpoint.
// Options win over all of them.
//
// A missing region and missing credentials are errors that say what to set, before
// the first request to SQS. Where nothing else has credentials the SDK asks the
// machine's role; elsewhere than on EC2 it takes seconds to find that there's
// none, unless AWS_EC2_METADATA_DISABLED is true.
//
// # LocalStack and other stand-ins
//
// An endpoint that begins with http: isn't AWS. There the region is us-east-1 and
// the credentials are test and test unless others are set, so that this suffices:
//
//	AWS_ENDPOINT_URL_SQS=http://127.0.0.1:4566
//
// # Connections
//
// Each open long poll occupies a connection. The SDK keeps ten idle ones per host,
// so that a process with a hundred queues would open, and encrypt, ninety new ones
// every time its polls return together. A client made here keeps as many as were in
// use at once, up to 1,024, and has no limit to those in use. There's no timeout
// on an answer: a long poll's takes 20 seconds. Each call's own context ends it.
package awsclient
