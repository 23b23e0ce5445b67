//go:build !linux

package main

import (
	"context"
	"time"
)

// pause sleeps, as precisely as the runtime's timers are. It doesn't end early
// when ctx does, as it's short, but says so.
func pause(ctx context.Context, d time.Duration) error {
	time.Sleep(d)
	return ctx.Err()
}
