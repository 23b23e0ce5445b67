// Package sqstest is an Amazon SQS server for tests: in the process, or over
// HTTP.
package sqstest
