// Package batcher gathers what concurrent callers publish into few requests,
// without making a lone caller wait. It's shared by the backends whose brokers
// take several messages in a request.
package batcher
