// Package parties has the fake third parties of the blast example, and the
// judge of a run: what happened to each customer is computed from what the
// parties got, compared with the list that was given, and never from what the
// program says about itself.
//
// The parties are a customer service (accounts with credit, lists, customers),
// an address checker, a mail API and an activity service. Beside them lies a
// small key-value service that stands in for the application's own database, so
// that the parts of the program can run as separate processes.
package parties
