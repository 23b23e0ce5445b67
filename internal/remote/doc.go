// Package remote is what the backends of brokers behind a network share: calls
// in flight that Close waits for, requests side by side, and long polls that
// outlive the call that began them. What their Ensure makes of a dead-letter queue,
// package memory does too.
package remote
