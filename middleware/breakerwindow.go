package middleware

import "time"

// breakerSlices is how many parts a window has: what it has counted is
// forgotten part by part.
const breakerSlices = 10

// breakerWindow counts calls and failures in the recent past.
type breakerWindow struct {
	width         time.Duration // of a slice
	start         time.Time     // of the current slice
	at            int
	calls, failed [breakerSlices]int
}

func (w *breakerWindow) add(now time.Time, failed bool) {
	if steps := int64(now.Sub(w.start) / w.width); w.start.IsZero() || steps >= breakerSlices {
		*w = breakerWindow{width: w.width, start: now}
	} else {
		for range steps {
			w.at = (w.at + 1) % breakerSlices
			w.calls[w.at], w.failed[w.at] = 0, 0
		}
		w.start = w.start.Add(time.Duration(steps) * w.width)
	}
	w.calls[w.at]++
	if failed {
		w.failed[w.at]++
	}
}

func (w *breakerWindow) sum() (calls, failed int) {
	for i := range w.calls {
		calls += w.calls[i]
		failed += w.failed[i]
	}
	return calls, failed
}
