package remote

// meant is an error of a broker's client with its neutral meaning.
type meant struct {
	kind error
	err  error
}

func (e *meant) Error() string   { return e.err.Error() }
func (e *meant) Unwrap() []error { return []error{e.kind, e.err} }

// As gives err the meaning of a sentinel of package queue, without adding a word;
// a nil kind changes nothing.
func As(kind, err error) error {
	if kind == nil {
		return err
	}
	return &meant{kind, err}
}
