package middleware

// LimitKeys tells how many keys a Limiter keeps.
func LimitKeys(l *Limiter) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.keys)
}

// RateKeys tells how many keys a RateLimiter keeps.
func RateKeys(r *RateLimiter) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.buckets)
}
