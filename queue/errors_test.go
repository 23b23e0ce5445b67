package queue

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEntriesOfAPublishErrorAreFound(t *testing.T) {
	t.Parallel()
	limit := &LimitError{Field: "body", Got: 2, Max: 1, System: "x"}
	err := fmt.Errorf("orders: %w", NewPublishError([]error{nil, fmt.Errorf("y: %w", ErrThrottled), limit}))
	require.ErrorIs(t, err, ErrThrottled)
	assert.NotErrorIs(t, err, ErrClosed)
	var le *LimitError
	require.ErrorAs(t, err, &le)
	assert.Same(t, limit, le)
	var pe *PublishError
	require.ErrorAs(t, err, &pe)
	assert.Equal(t, 3, pe.Total)
	assert.Equal(t, []int{1, 2}, []int{pe.Failed[0].Index, pe.Failed[1].Index})
	assert.Contains(t, err.Error(), "2 of 3 failed; [1] y: queue: throttled; [2] queue: body: 2 is over the limit of 1 on x")
}

func TestNoEntryErrorIsNoError(t *testing.T) {
	t.Parallel()
	assert.NoError(t, NewPublishError(nil))
	assert.NoError(t, NewPublishError(make([]error, 3)))
	assert.NoError(t, NewSettleError(make([]error, 3)))
}

func TestErrorOfAnOnlyMessageIsSaidPlainly(t *testing.T) {
	t.Parallel()
	assert.Equal(t, errTest.Error(), NewPublishError([]error{errTest}).Error())
}

func TestManyEntryErrorsAreCutInTheText(t *testing.T) {
	t.Parallel()
	errs := make([]error, 9)
	for i := range errs {
		errs[i] = errTest
	}
	assert.Contains(t, NewSettleError(errs).Error(), "settle: 9 of 9 failed; [0] test failure; [1] test failure; [2] test failure; and 6 more")
}

func TestPublishErrorsSpreadsOverTheMessages(t *testing.T) {
	t.Parallel()
	a, b := errors.New("a"), errors.New("b")
	part := NewPublishError([]error{nil, a, nil})
	out := &PublishError{Total: 3, Failed: []EntryError{{Index: 9, Err: a}, {Index: -1, Err: a}}}
	cases := map[string]struct {
		err  error
		want []error
	}{
		"none":                     {nil, []error{nil, nil, nil}},
		"one":                      {part, []error{nil, a, nil}},
		"wrapped":                  {fmt.Errorf("x: %w", part), []error{nil, a, nil}},
		"of another kind":          {b, []error{b, b, b}},
		"of another call":          {NewPublishError([]error{a, nil}), nil},
		"names none of ours":       {out, []error{out, out, out}},
		"names none":               {&PublishError{Total: 3}, nil},
		"names one without reason": {&PublishError{Total: 3, Failed: []EntryError{{Index: 1}}}, nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := c.want
			if want == nil { // all of them: a success must never be guessed
				want = []error{c.err, c.err, c.err}
			}
			assert.Equal(t, want, PublishErrors(c.err, 3))
		})
	}
}

func TestSettleErrorsAreSpreadLikeThoseOfPublish(t *testing.T) {
	t.Parallel()
	assert.Nil(t, settleErrors(nil, 2))
	assert.Equal(t, []error{nil, errTest}, settleErrors(fmt.Errorf("x: %w", NewSettleError([]error{nil, errTest})), 2))
	assert.Equal(t, []error{errTest, errTest}, settleErrors(errTest, 2))
}

func TestErrorsMatchTheirSentinels(t *testing.T) {
	t.Parallel()
	require.ErrorIs(t, &InvalidError{"X", "y"}, ErrInvalid)
	require.ErrorIs(t, &UnsupportedError{"x", "y"}, ErrUnsupported)
	require.NotErrorIs(t, &InvalidError{"X", "y"}, ErrUnsupported)
	assert.Equal(t, "queue: invalid X: y", (&InvalidError{"X", "y"}).Error())
	assert.Equal(t, "queue: x is not supported on y", (&UnsupportedError{"x", "y"}).Error())
}

func TestLimitOfADelayIsSaidAsADuration(t *testing.T) {
	t.Parallel()
	err := &LimitError{Field: "delay beyond the queue's retention", Got: int64(200 * time.Hour), Max: int64(96 * time.Hour), System: "aws_sqs"}
	assert.Contains(t, err.Error(), "200h0m0s")
	assert.Contains(t, err.Error(), "96h0m0s")
}

func TestAbandonedErrorNamesAFew(t *testing.T) {
	t.Parallel()
	assert.Contains(t, (&AbandonedError{IDs: []string{"a"}}).Error(), "1 handler ")
	text := (&AbandonedError{IDs: []string{"a", "b", "c", "d", "e", "f", "g"}}).Error()
	assert.Contains(t, text, "7 handlers ")
	assert.Contains(t, text, "a, b, c, d, e and 2 more")
}
