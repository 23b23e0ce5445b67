package queue

import (
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func sqsLike() Capabilities {
	return Capabilities{
		Source: Endpoint{"aws_sqs", "orders"}, Wire: SQSWire(), Delays: true, MaxDelay: 15 * time.Minute, DelayUnit: time.Second,
		Retention: 96 * time.Hour, Ordering: true, Dedup: true,
	}
}

func TestPrepareRefuses(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ten := map[string]string{}
	for _, k := range strings.Split("abcdefghij", "") {
		ten[k] = k
	}
	full := strings.Repeat("x", 1<<20)
	limit := func(field string) func(*testing.T, error) {
		return func(t *testing.T, err error) {
			t.Helper()
			var le *LimitError
			require.ErrorAs(t, err, &le)
			assert.Equal(t, field, le.Field)
			assert.Greater(t, le.Got, le.Max)
			assert.Equal(t, "aws_sqs", le.System)
		}
	}
	is := func(target error) func(*testing.T, error) {
		return func(t *testing.T, err error) { t.Helper(); require.ErrorIs(t, err, target) }
	}
	none := sqsLike()
	none.Delays, none.Ordering, none.Dedup = false, false, false
	cases := map[string]struct {
		caps  Capabilities
		m     *Message
		check func(*testing.T, error)
	}{
		"nil":                             {sqsLike(), nil, is(ErrInvalid)},
		"reserved attribute":              {sqsLike(), &Message{Attributes: map[string]string{"queue-x": "1"}}, is(ErrInvalid)},
		"the system's attribute":          {sqsLike(), &Message{Attributes: map[string]string{"AWS.x": "1"}}, is(ErrInvalid)},
		"attribute without a name":        {sqsLike(), &Message{Attributes: map[string]string{"": "1"}}, is(ErrInvalid)},
		"attribute name with a space":     {sqsLike(), &Message{Attributes: map[string]string{"a b": "1"}}, is(ErrInvalid)},
		"attribute name with two dots":    {sqsLike(), &Message{Attributes: map[string]string{"a..b": "1"}}, is(ErrInvalid)},
		"attribute value not UTF-8":       {sqsLike(), &Message{Attributes: map[string]string{"a": "\xff"}}, is(ErrInvalid)},
		"id not UTF-8":                    {sqsLike(), &Message{ID: "\xff"}, is(ErrInvalid)},
		"long attribute name":             {sqsLike(), &Message{Attributes: map[string]string{strings.Repeat("a", 257): "1"}}, limit(`name of attribute "` + strings.Repeat("a", 40) + `..."`)},
		"oversize body":                   {sqsLike(), &Message{Body: []byte(full + "x")}, limit("body")},
		"oversize binary body":            {sqsLike(), &Message{Body: make([]byte, 1<<20*3/4)}, limit("body and attributes")},
		"oversize with its attributes":    {sqsLike(), &Message{Body: []byte(full), Attributes: map[string]string{"a": "b"}}, limit("body and attributes")},
		"oversize with its id":            {sqsLike(), &Message{Body: []byte(full), ID: "x"}, limit("body and attributes")},
		"eleven attributes":               {sqsLike(), &Message{Attributes: with(ten, "k", "k"), Body: []byte("x")}, limit("attributes")},
		"ten attributes and an id":        {sqsLike(), &Message{Attributes: ten, ID: "x", Body: []byte("x")}, limit("attributes with the library's own")},
		"ten attributes and a long delay": {sqsLike(), &Message{Attributes: ten, Body: []byte("x"), Delay: time.Hour}, limit("attributes with the library's own")},
		"long ordering key":               {sqsLike(), &Message{OrderingKey: strings.Repeat("k", 129)}, limit("ordering key")},
		"ordering key with a space":       {sqsLike(), &Message{OrderingKey: "a b"}, is(ErrInvalid)},
		"long dedup id":                   {sqsLike(), &Message{DedupID: strings.Repeat("k", 129)}, limit("dedup id")},
		"Delay and DeliverAt":             {sqsLike(), &Message{Delay: 1, DeliverAt: now.Add(time.Hour)}, is(ErrInvalid)},
		"negative Delay and DeliverAt":    {sqsLike(), &Message{Delay: -1, DeliverAt: now.Add(time.Hour)}, is(ErrInvalid)},
		"negative delay":                  {sqsLike(), &Message{Delay: -1}, is(ErrInvalid)},
		"delay beyond the retention":      {sqsLike(), &Message{Delay: 97 * time.Hour}, limit("delay beyond the queue's retention")},
		"time beyond the retention":       {sqsLike(), &Message{DeliverAt: now.Add(97 * time.Hour)}, limit("delay beyond the queue's retention")},
		"delay with an ordering key":      {sqsLike(), &Message{Delay: 1, OrderingKey: "k"}, is(ErrUnsupported)},
		"time with an ordering key":       {sqsLike(), &Message{DeliverAt: now.Add(1), OrderingKey: "k"}, is(ErrUnsupported)},
		"ordering where there's none":     {none, &Message{OrderingKey: "k"}, is(ErrUnsupported)},
		"dedup where there's none":        {none, &Message{DedupID: "k"}, is(ErrUnsupported)},
		"delay where there's none":        {none, &Message{Delay: 1}, is(ErrUnsupported)},
		"option of another system":        {sqsLike(), &Message{Options: []MessageOption{testOption("gcp_pubsub")}}, is(ErrUnsupported)},
		"nil option":                      {sqsLike(), &Message{Options: []MessageOption{nil}}, is(ErrInvalid)},
		"year 20000":                      {Capabilities{Delays: true}, &Message{DeliverAt: time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)}, is(ErrInvalid)},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := c.caps.Prepare(c.m, now)
			c.check(t, err)
		})
	}
}

func TestPrepareEachShowsEveryAttributeOnce(t *testing.T) {
	t.Parallel()
	given := map[string]string{"a": "1", "b": "2", "c": "\u00e9"}
	for _, m := range []*Message{{Attributes: given}, {Attributes: given, ID: "x"}, {Attributes: given, Delay: time.Second}} {
		seen, calls := map[string]string{}, 0
		caps := sqsLike()
		_, err := caps.PrepareEach(m, time.Now(), func(name, value string) {
			seen[name] = value
			calls++
		})
		require.NoError(t, err)
		assert.Equal(t, given, seen)
		assert.Equal(t, len(given), calls)
	}
}

func with(m map[string]string, k, v string) map[string]string {
	out := maps.Clone(m)
	out[k] = v
	return out
}

func TestPrepareWorksOutTheDelay(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 8, 0, 0, 1, time.UTC)
	exact := Capabilities{Delays: true, MaxDelay: math.MaxInt64}
	hops := Capabilities{Delays: true, Wire: PubSubWire()}
	ever := sqsLike()
	ever.Retention = 0
	cases := map[string]struct {
		caps   Capabilities
		m      Message
		delay  time.Duration
		due    time.Duration // from now; 0: at once
		inMeta bool
	}{
		"none":                       {sqsLike(), Message{}, 0, 0, false},
		"rounded up":                 {sqsLike(), Message{Delay: time.Second + 1}, 2 * time.Second, time.Second + 1, false},
		"a nanosecond":               {sqsLike(), Message{Delay: 1}, time.Second, 1, false},
		"whole seconds":              {sqsLike(), Message{Delay: time.Minute}, time.Minute, time.Minute, false},
		"the longest native":         {sqsLike(), Message{Delay: 15 * time.Minute}, 15 * time.Minute, 15 * time.Minute, false},
		"just beyond, by rounding":   {sqsLike(), Message{Delay: 15*time.Minute + 1}, 15 * time.Minute, 15*time.Minute + 1, true},
		"beyond native":              {sqsLike(), Message{Delay: time.Hour}, 15 * time.Minute, time.Hour, true},
		"a time":                     {sqsLike(), Message{DeliverAt: now.Add(90 * time.Millisecond)}, time.Second, 90 * time.Millisecond, true},
		"a time beyond native":       {sqsLike(), Message{DeliverAt: now.Add(time.Hour)}, 15 * time.Minute, time.Hour, true},
		"a time in the past":         {sqsLike(), Message{DeliverAt: now.Add(-time.Hour)}, 0, 0, false},
		"a past time, in order":      {sqsLike(), Message{DeliverAt: now.Add(-time.Hour), OrderingKey: "k"}, 0, 0, false},
		"no native delay":            {hops, Message{Delay: time.Second}, 0, time.Second, true},
		"exact":                      {exact, Message{Delay: 7}, 7, 7, false},
		"exact, to a time":           {exact, Message{DeliverAt: now.Add(7)}, 7, 7, false},
		"as long as there is":        {ever, Message{Delay: math.MaxInt64}, 15 * time.Minute, math.MaxInt64, true},
		"as far as a time can be":    {ever, Message{DeliverAt: now.AddDate(1000, 0, 0)}, 15 * time.Minute, -1, true},
		"up to the retention itself": {sqsLike(), Message{Delay: 96 * time.Hour}, 15 * time.Minute, 96 * time.Hour, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := c.m
			p, err := c.caps.Prepare(&c.m, now)
			require.NoError(t, err)
			assert.Equal(t, before, c.m, "the message isn't written to")
			assert.Equal(t, c.delay, p.Delay)
			due := time.Time{}
			switch {
			case c.due < 0:
				due = c.m.DeliverAt
			case c.due > 0:
				due = now.Add(c.due)
			}
			assert.True(t, due.Equal(p.Due), "due %v", p.Due)
			enc, err := c.caps.Wire.Encode(p.Message)
			require.NoError(t, err)
			got := c.caps.Wire.Decode(enc.Body, maps.Clone(enc.Attributes), nil).Due()
			assert.Equal(t, c.inMeta, !got.IsZero())
			if c.due < 0 || c.due >= time.Minute {
				age := c.caps.Wire.Decode(enc.Body, maps.Clone(enc.Attributes), nil).AgeFrom()
				assert.False(t, age.Before(due), "the age counts from the end of the delay")
			} else if !c.inMeta {
				assert.Empty(t, enc.Attributes[MetaAttribute])
			}
			if c.inMeta {
				assert.False(t, got.Before(due))
				assert.Less(t, got.Sub(due), time.Millisecond)
			}
		})
	}
}

func TestPrepareGivesTheOptionsOfItsSystem(t *testing.T) {
	t.Parallel()
	own := testOption("aws_sqs")
	caps := sqsLike()
	p, err := caps.Prepare(&Message{Body: []byte("x"), Options: []MessageOption{Hint(testOption("other")), Hint(own)}}, time.Now())
	require.NoError(t, err)
	assert.Equal(t, []MessageOption{own}, p.Options)
}

func TestHopOfADelayGoesTheRestOfTheWay(t *testing.T) {
	t.Parallel()
	now := time.Now()
	caps := sqsLike()
	d := &Delivery{Message: Message{ID: "x", Body: []byte("x")}}
	for rest, want := range map[time.Duration]time.Duration{
		time.Hour: 15 * time.Minute, 90*time.Second + 1: 91 * time.Second, -time.Second: 0,
	} {
		p, err := caps.Prepare(hopMessage(d, now.Add(rest), 0), now)
		require.NoError(t, err)
		assert.Equal(t, want, p.Delay)
	}
}

func TestOrderingKeyOfADeadLetterSurvivesAQueueWithoutOrder(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ordered := sqsLike()
	long := Capabilities{Wire: PubSubWire(), Ordering: true}
	cases := map[string]struct {
		via Capabilities
		key string
		// what the dead-letter queue itself orders by
		there string
	}{
		"no order":                 {Capabilities{Wire: PortableWire()}, "k 1", ""},
		"order, and a key too odd": {ordered, "k 1", ""},
		"order":                    {ordered, "k1", "k1"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &Delivery{Message: Message{ID: "x", Body: []byte("x"), OrderingKey: c.key}}
			p, err := c.via.Prepare(NewDeadLetter(d, errTest, ReasonAge, now), now)
			require.NoError(t, err)
			assert.Equal(t, c.there, p.Message.OrderingKey)
			enc, err := c.via.Wire.Encode(p.Message)
			require.NoError(t, err)
			letter := c.via.Wire.Decode(enc.Body, enc.Attributes, nil)
			letter.OrderingKey = p.Message.OrderingKey // as the broker gives it
			back, err := long.Prepare(redriven(letter, now, &RedriveOptions{}), now)
			require.NoError(t, err)
			assert.Equal(t, c.key, back.Message.OrderingKey)
			assert.Empty(t, back.Message.meta.key)
		})
	}
}

func TestFullMessageWithANativeDelayGoesWithoutTellingItsAge(t *testing.T) {
	t.Parallel()
	caps := sqsLike()
	m := &Message{Body: []byte(strings.Repeat("x", 1<<20)), Delay: 10 * time.Minute}
	p, err := caps.Prepare(m, time.Now())
	require.NoError(t, err)
	assert.Equal(t, 10*time.Minute, p.Delay)
	enc, err := caps.Wire.Encode(p.Message)
	require.NoError(t, err)
	assert.Empty(t, enc.Attributes)

	m.Delay = time.Hour
	_, err = caps.Prepare(m, time.Now())
	var le *LimitError
	require.ErrorAs(t, err, &le, "a due time must go")
}

func TestRoundUp(t *testing.T) {
	t.Parallel()
	assert.Equal(t, time.Duration(7), roundUp(7, 0))
	assert.Equal(t, time.Duration(10), roundUp(7, 10))
	assert.Equal(t, time.Duration(10), roundUp(10, 10))
	assert.Equal(t, time.Duration(math.MaxInt64), roundUp(math.MaxInt64-1, time.Second))
}
