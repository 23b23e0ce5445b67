package queue

// As finds the first T in v or in what v wraps: values with an Unwrap method
// that returns a Publisher, a Subscriber, a Queue or a Backend are looked
// through. It's how optional capabilities are found:
//
//	if in, ok := queue.As[queue.Inspector](q); ok {
func As[T any](v any) (T, bool) {
	for v != nil {
		if t, ok := v.(T); ok {
			return t, true
		}
		switch u := v.(type) {
		case interface{ Unwrap() Publisher }:
			v = u.Unwrap()
		case interface{ Unwrap() Subscriber }:
			v = u.Unwrap()
		case interface{ Unwrap() Queue }:
			v = u.Unwrap()
		case interface{ Unwrap() Backend }:
			v = u.Unwrap()
		default:
			v = nil
		}
	}
	var zero T
	return zero, false
}
