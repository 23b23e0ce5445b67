// Package queuetest is the conformance suite of package queue: it holds every
// backend to the same promises, with a named test for each. It also has Start,
// for the tests of applications.
//
// A backend describes itself with a [Harness] and calls [Run]:
//
//	func TestConformance(t *testing.T) {
//		queuetest.Run(t, queuetest.Harness{
//			Name:    "memory",
//			Virtual: true,
//			New: func(t testing.TB) queuetest.Instance {
//				return queuetest.Instance{Backend: memory.New(nil)}
//			},
//		})
//	}
//
// # Time
//
// Where no real server is involved, each test runs on virtual time in a bubble
// of testing/synctest: an hour of retries takes a millisecond, and a goroutine
// that outlives its test is found. Against a real server the same tests run in
// parallel, with leases and delays as short as the server takes
// ([Harness].Lease and [Harness].Unit); goroutines that were left behind are
// looked for at the end.
//
// # What isn't supported
//
// Nothing is left out silently. What a backend can't do is named, for each
// backend, in the suite's own table, and the tests then assert that it's
// refused with queue.ErrUnsupported. A test that can't run on a backend at all
// is named in a second table with the reason. Any other skip, and an entry
// without its test, fails.
//
// # Storms
//
// The suite runs one storm: handlers and every call to the broker fail at
// random, answers are lost, consumers are resized, paused and restarted, and in
// the end each message must have been handled or dead-lettered. [Soak] runs
// storms for as long as asked; a failure names its seed.
//
// # When a test fails
//
// It prints why its rule exists, and what the consumers logged.
package queuetest
