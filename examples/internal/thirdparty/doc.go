// Package thirdparty makes the fake third parties of the examples fail as real
// ones do: outages, 429 with Retry-After, a share of 5xx, slow answers, and
// answers that are lost after the work was done.
//
// A [Party] wraps the http.Handler of a fake and keeps a log of all requests,
// with what became of each. The log is what the examples are judged by, rather
// than their own counters.
package thirdparty
