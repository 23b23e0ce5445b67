package queue

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type lead struct {
	Email string `json:"email" xml:"email"`
	Score int    `json:"score" xml:"score"`
}

func TestJSONGivesTheDecodedValueWithItsDelivery(t *testing.T) {
	t.Parallel()
	var got lead
	var from *Delivery
	h := JSON(func(_ context.Context, v lead, d *Delivery) error {
		got, from = v, d
		return errTest
	})
	d := &Delivery{Message: Message{Body: []byte(`{"email":"a@b.c","score":7,"unknown":1}`)}}
	require.ErrorIs(t, h(t.Context(), d), errTest)
	assert.Equal(t, lead{"a@b.c", 7}, got)
	assert.Same(t, d, from)
	require.ErrorIs(t, h(t.Context(), &Delivery{Message: Message{Body: []byte(`{"score":1}`)}}), errTest)
	assert.Equal(t, lead{"", 1}, got, "nothing of the one before is left")
}

func TestWhatCannotBeDecodedIsRejected(t *testing.T) {
	t.Parallel()
	h := JSON(func(context.Context, lead, *Delivery) error {
		t.Error("called")
		return nil
	})
	for name, body := range map[string]string{
		"empty": "", "cut off": `{"email":"a`, "no JSON": "<lead/>", "another type": `{"score":"7"}`, "something behind": `{} {}`, "binary": "\x00\xff",
	} {
		err := h(t.Context(), &Delivery{Message: Message{Body: []byte(body)}})
		assert.Equal(t, Rejected, OutcomeOf(err).Kind, name)
		assert.Contains(t, err.Error(), "decode queue.lead", name)
	}
	_, ok := errors.AsType[*json.UnmarshalTypeError](h(t.Context(), &Delivery{Message: Message{Body: []byte(`{"score":"7"}`)}}))
	assert.True(t, ok, "the codec's error can be looked at")
}

func TestNullGivesTheZeroValue(t *testing.T) {
	t.Parallel()
	called := 0
	null := &Delivery{Message: Message{Body: []byte("null")}}
	require.NoError(t, JSON(func(_ context.Context, v lead, _ *Delivery) error {
		called++
		assert.Zero(t, v)
		return nil
	})(t.Context(), null))
	require.NoError(t, JSON(func(_ context.Context, v *lead, _ *Delivery) error {
		called++
		assert.Nil(t, v)
		return nil
	})(t.Context(), null))
	assert.Equal(t, 2, called)
}

func TestOtherCodecs(t *testing.T) {
	t.Parallel()
	var sent *Message
	p := PublisherFunc(func(_ context.Context, msgs ...*Message) error {
		sent = msgs[0]
		return nil
	})
	require.NoError(t, Encode(t.Context(), p, xml.Marshal, lead{"a@b.c", 7}))
	assert.Equal(t, "<lead><email>a@b.c</email><score>7</score></lead>", string(sent.Body))
	var got lead
	h := Decode(xml.Unmarshal, func(_ context.Context, v lead, _ *Delivery) error {
		got = v
		return nil
	})
	require.NoError(t, h(t.Context(), &Delivery{Message: *sent}))
	assert.Equal(t, lead{"a@b.c", 7}, got)
	assert.Equal(t, Rejected, OutcomeOf(h(t.Context(), &Delivery{Message: Message{Body: []byte("{}")}})).Kind)
}

func TestPublishJSONSetsWhatItsOptionsSay(t *testing.T) {
	t.Parallel()
	var sent *Message
	p := PublisherFunc(func(_ context.Context, msgs ...*Message) error {
		require.Len(t, msgs, 1)
		sent = msgs[0]
		return errTest
	})
	at := time.Unix(1, 0)
	a, b := testOption("a"), testOption("b")
	shared := map[string]string{"s": "1"}
	err := PublishJSON(t.Context(), p, lead{"a@b.c", 7},
		WithID("i"), WithDedupID("d"), WithOrderingKey("k"), WithDelay(time.Second), WithDeliverAt(at),
		func(m *Message) { m.Attributes = shared },
		WithAttribute("x", "1"), WithAttribute("y", "2"), WithAttribute("x", "3"), WithOptions(a), WithOptions(b))
	require.ErrorIs(t, err, errTest)
	assert.Equal(t, &Message{
		ID: "i", DedupID: "d", OrderingKey: "k", Delay: time.Second, DeliverAt: at, Body: []byte(`{"email":"a@b.c","score":7}`),
		Attributes: map[string]string{"s": "1", "x": "3", "y": "2"}, Options: []MessageOption{a, b},
	}, sent)
	assert.Equal(t, map[string]string{"s": "1"}, shared)
}

func TestNothingIsSentThatCannotBeEncoded(t *testing.T) {
	t.Parallel()
	p := PublisherFunc(func(context.Context, ...*Message) error {
		t.Error("published")
		return nil
	})
	err := PublishJSON(t.Context(), p, math.NaN())
	require.ErrorIs(t, err, ErrInvalid)
	_, ok := errors.AsType[*json.UnsupportedValueError](err)
	assert.True(t, ok)
	require.ErrorIs(t, PublishJSON(t.Context(), p, 1, nil), ErrInvalid)
	require.ErrorIs(t, PublishJSON(t.Context(), nil, 1), ErrInvalid)
	require.ErrorIs(t, Encode(t.Context(), p, nil, 1), ErrInvalid)
}

func TestTypedHandlerWithoutAFunctionFails(t *testing.T) {
	t.Parallel()
	for _, h := range []Handler{JSON[lead](nil), Decode(nil, func(context.Context, lead, *Delivery) error { return nil })} {
		err := h(t.Context(), &Delivery{Message: Message{Body: []byte("{}")}})
		require.ErrorIs(t, err, ErrInvalid)
		assert.Equal(t, Failed, OutcomeOf(err).Kind, "nothing is lost")
	}
}
