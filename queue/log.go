package queue

import (
	"context"
	"log/slog"
	"time"
)

func (c *Consumer) logStart() {
	c.mu.Lock()
	limit := c.limit
	c.mu.Unlock()
	args := []any{
		"queue", c.opts.Name, "backend", c.caps.Source.System, "address", c.caps.Address, "concurrency", limit,
	}
	if g := c.giveUp; g.To != "" {
		args = append(args, "to", g.To)
		if g.MaxAge > 0 {
			args = append(args, "gives_up", g.MaxAge)
		}
		if g.MaxFailures > 0 {
			args = append(args, "max_failures", g.MaxFailures)
		}
	} else {
		args = append(args, "gives_up", "never")
	}
	if c.caps.Retention > 0 {
		args = append(args, "retention", c.caps.Retention)
	}
	c.opts.Logger.Info("consuming", args...)
}

// tellSettled calls the hooks and logs what doesn't go its usual way.
func (c *Consumer) tellSettled(l *lease, v *Settled) {
	for _, h := range c.hooks {
		if h.Settled != nil {
			h.Settled(*v)
		}
	}
	if keyed := c.caps.Ordering && l.kept.key != ""; v.Delay > 0 && (keyed || !c.caps.Delays) && c.expiresBy(l, time.Now().Add(v.Delay)) {
		// It can't be published again, as it would lose its place.
		c.opts.Logger.Warn("the queue's retention ends before the message comes back: it may be lost then", "queue", c.opts.Name, "id", l.id,
			"in", v.Delay.Round(time.Millisecond), "retention", c.caps.Retention)
	}
	if !c.logs || v.Err == nil {
		return
	}
	level, line := slog.LevelWarn, v.Outcome.Kind.String()
	switch v.Outcome.Kind {
	case Failed, Retry:
		line = "retry"
		if v.Interrupted {
			level, line = slog.LevelInfo, "interrupted"
		}
	case Rejected:
		level, line = slog.LevelError, "unroutable"
	case Snoozed:
		level, line = slog.LevelDebug, "snooze"
	case Dropped:
		line = "drop"
	case DeadLettered:
		level, line = slog.LevelError, "dead_letter"
	case Success:
	}
	if !c.opts.Logger.Enabled(context.Background(), level) {
		return
	}
	args := []any{"queue", c.opts.Name, "id", l.id, "failures", v.Failures}
	if v.Delay > 0 {
		args = append(args, "in", v.Delay.Round(time.Millisecond))
	}
	if v.Outcome.To != "" {
		args = append(args, "to", v.Outcome.To)
	}
	if v.Outcome.Kind != Snoozed {
		args = append(args, "err", v.Err)
	}
	if v.GivesUpIn > 0 && v.Outcome.Kind != DeadLettered {
		args = append(args, "gives_up", v.GivesUpIn.Round(time.Second))
	}
	c.opts.Logger.Log(context.Background(), level, line, args...)
}
