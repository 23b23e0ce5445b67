package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/anyqueue/anyqueue/examples/blast/parties"
	"github.com/anyqueue/anyqueue/queue"
)

// A conductor orders a blast, tells how it goes, and waits for its end.
type conductor struct {
	*program
	blast Blast
	ended chan error // of the workers of this process

	firstDead *queue.DeadLetterInfo // of the first dead letter that was seen
}

func (c *conductor) conduct(ctx context.Context) (lost bool, err error) {
	work, stop := context.WithCancel(ctx)
	defer stop()
	c.ended = make(chan error, 1)
	if c.opts.has(roleSender) {
		go func() { c.ended <- c.bus.Run(work) }()
	} else {
		c.ended <- nil
	}
	began := time.Now()
	err = c.order(ctx)
	if err == nil {
		began, err = time.Now(), c.wait(ctx)
	}
	ended := c.fakes.Judge.Ended() // looking into a queue may have taken a while meanwhile
	if ended.IsZero() {
		ended = time.Now()
	}
	took := ended.Sub(began)
	if err == nil && ctx.Err() == nil {
		err = c.settle(ctx)
	}
	stop()
	err = errors.Join(err, <-c.ended)
	if missing, lookErr := c.deadLetters(context.WithoutCancel(ctx)); lookErr != nil {
		err = errors.Join(err, lookErr)
	} else if missing > 0 {
		c.fakes.Judge.NoMoreDeadLetters()
	}
	result, wrong := c.fakes.Judge.Verdict()
	result.Seconds = float64(took.Round(10*time.Millisecond)) / float64(time.Second)
	err = errors.Join(err, c.writeOutcomes())
	return c.report(result, wrong), err
}

// order publishes the blast, after the flood if that was asked for.
func (c *conductor) order(ctx context.Context) error {
	if c.opts.flood > 0 {
		if err := c.flood(ctx); err != nil {
			return err
		}
		c.time.tell("flood: %s activities wait in %s", count(c.opts.flood), activityQueue)
	}
	return queue.PublishJSON(ctx, c.bus.Publisher(listQueue), c.blast, queue.WithID(c.blast.ID.String()))
}

func (c *conductor) flood(ctx context.Context) error {
	pub := c.bus.Publisher(activityQueue)
	for from := 0; from < c.opts.flood; from += fanOut {
		var msgs []*queue.Message
		for i := from; i < min(from+fanOut, c.opts.flood); i++ {
			a := Activity{Blast: c.blast.ID, Customer: strconv.Itoa(i), Kind: floodEvent, At: time.Now()}
			body, err := json.Marshal(a)
			if err != nil {
				return err
			}
			msgs = append(msgs, &queue.Message{ID: a.ID(), Body: body})
		}
		if err := pub.Publish(ctx, msgs...); err != nil {
			return err
		}
	}
	return nil
}

// wait returns when something has become of each customer, or when ctx ends.
func (c *conductor) wait(ctx context.Context) error {
	judge := c.fakes.Judge
	timeout := time.NewTimer(c.opts.timeout)
	defer timeout.Stop()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	workers := c.ended
	if !c.opts.has(roleSender) {
		workers = nil // they are other processes
	}
	var before parties.Result
	for {
		select {
		case <-judge.Done():
			return nil
		case <-ctx.Done():
			c.time.tell("told to stop: the handlers may finish what they're at")
			return nil
		case err := <-workers:
			c.ended <- nil
			return fmt.Errorf("the workers have ended: %w", err)
		case <-timeout.C:
			return fmt.Errorf("the blast isn't at an end after %v", c.opts.timeout)
		case <-tick.C:
			now := judge.Progress()
			if now != before {
				c.progress(now)
			}
			if now.Lost == before.Lost { // nothing has ended: are the others dead letters?
				if _, err := c.deadLetters(ctx); err != nil {
					return err
				}
			}
			before = now
		}
	}
}

func (c *conductor) progress(r parties.Result) {
	c.time.tell("%s of %s: %s sent, %s skipped, %s dead-lettered, %s in doubt; %s retried", count(r.Unique-r.Lost), count(r.Unique),
		count(r.Sent), count(r.Skipped), count(r.DeadLettered), count(r.InDoubt), count(r.Retried))
}

// settle waits until the queues are quiet and the dead letters are in theirs,
// but not for ever.
func (c *conductor) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	queues := []string{listQueue, mailQueue}
	if c.opts.flood == 0 {
		queues = append(queues, activityQueue)
	}
	return poll(ctx, func() (done bool, err error) {
		if c.opts.flood == 0 && c.untold() > 0 { // which the broker may not say, and looking isn't free
			return false, nil
		}
		for _, name := range queues {
			if n, err := c.waiting(ctx, name); err != nil || n > 0 {
				return false, err
			}
		}
		missing, err := c.deadLetters(ctx)
		return missing == 0, err
	})
}

// untold is how many activities haven't been logged: each customer has one, but
// for dead letters.
func (c *conductor) untold() int {
	r := c.fakes.Judge.Progress()
	return max(0, r.Unique-r.DeadLettered-c.fakes.Activities(mailSent, mailSkipped, mailInDoubt))
}

// poll asks done from time to time, less and less often, until ctx ends: that
// isn't an error.
func poll(ctx context.Context, done func() (bool, error)) error {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		ok, err := done()
		if ctx.Err() != nil {
			return nil
		}
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// report tells the result, last of all as a line of JSON.
func (c *conductor) report(r parties.Result, wrong []string) (lost bool) {
	c.progress(r)
	if n := c.fakes.Activities(mailSent, mailSkipped, mailInDoubt); n < r.Unique-r.DeadLettered {
		c.time.tell("activities: %s of the blast and %s of the flood are logged; the others wait in %s", count(n), count(c.fakes.Activities(floodEvent)), activityQueue)
	} else {
		c.time.tell("activities: all %s are logged", count(n))
	}
	if dead := c.firstDead; dead != nil {
		c.time.tell("dead letters: %s in %s, the first for: %s", count(r.DeadLettered), mailDeadLetters, dead.Error)
	}
	if r.InDoubt > 0 {
		c.time.tell("in doubt: %s mails may have been sent, or not; they are held, see -in-doubt", count(r.InDoubt))
	}
	if r.DuplicateMails > 0 {
		c.time.tell("sent again: %s mails were in doubt, and had arrived the first time", count(r.DuplicateMails))
	}
	if r.Lost > 0 {
		c.time.tell("not reached: %s customers", count(r.Lost))
	}
	for _, w := range wrong {
		c.time.tell("WRONG: %s", w)
	}
	c.time.tell("done")
	line, err := json.Marshal(r)
	if err != nil {
		panic(err) // numbers always can be
	}
	c.time.print(string(line) + "\n")
	return r.Lost > 0 || len(wrong) > 0
}

// writeOutcomes writes what became of each customer to the file that was asked
// for.
func (c *conductor) writeOutcomes() error {
	if c.opts.fates == "" {
		return nil
	}
	var b bytes.Buffer
	rows := csv.NewWriter(&b)
	err := rows.Write([]string{"customer", "outcome", "mails"})
	for _, o := range c.fakes.Judge.Outcomes() {
		err = errors.Join(err, rows.Write([]string{o.Customer, o.Fate, strconv.Itoa(o.Mails)}))
	}
	rows.Flush()
	if err = errors.Join(err, rows.Error()); err != nil {
		return err
	}
	return os.WriteFile(c.opts.fates, b.Bytes(), 0o600)
}
