package queue

import "context"

// lateFiller is a Subscriber of which a receive can leave out what's costly and
// nobody needs before the handler starts: body and attributes. They're copied by
// the goroutine that runs the handler, so by several at once, instead of by the
// one that receives for all.
//
// It's for a backend in memory, where these copies are most of what a receive
// costs. It's never looked for beneath a wrapper, which may want to see what's
// received.
type lateFiller interface {
	// ReceiveUnfilled is Receive, but that a delivery may lack Body and Attributes.
	ReceiveUnfilled(ctx context.Context, max int) ([]*Delivery, error)
	// Fill completes a delivery, if it needs to be, that ReceiveUnfilled has returned
	// and that wasn't settled yet. It may be called concurrently.
	Fill(d *Delivery)
}

// fillsLate decides whether deliveries may be incomplete until their handler
// starts: gates and hooks see them before.
func (c *Consumer) fillsLate() {
	if f, ok := c.sub.(lateFiller); ok && len(c.gates) == 0 && len(c.hooks) == 0 {
		c.filler = f
	}
}

func (c *Consumer) receive(ctx context.Context, n int) ([]*Delivery, error) {
	if c.filler != nil {
		return c.filler.ReceiveUnfilled(ctx, n)
	}
	return c.sub.Receive(ctx, n)
}

// fill completes a delivery that's about to be used.
func (c *Consumer) fill(l *lease) {
	if l.unfilled {
		c.filler.Fill(l.d)
		l.unfilled = false
	}
}
