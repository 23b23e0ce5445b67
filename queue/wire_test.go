package queue

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A message that a broker has carried can always be dead-lettered and moved
// back, whatever is in it and however full it is, and comes back the same.
func TestDeadLetterCopyAlwaysGoesAndRedriveRestoresTheOriginal(t *testing.T) {
	t.Parallel()
	for name, r := range wires() {
		for _, size := range []int{0, 4000, 900} {
			if size > 0 {
				r = r.limited(size)
			}
			t.Run(fmt.Sprint(name, "/", r.maxBytes), func(t *testing.T) {
				t.Parallel()
				rounds := 150
				if size == 0 {
					rounds = 3
				}
				for seed := range rounds {
					rnd := rand.New(rand.NewPCG(uint64(seed), 7))
					body, attrs, types := r.foreign(rnd)
					require.NoError(t, r.takes(body, attrs, types), "seed %d: the test's own message", seed)
					deadLetterAndBack(t, r, seed, body, attrs, types)
					if t.Failed() {
						return
					}
				}
			})
		}
	}
}

func deadLetterAndBack(t *testing.T, r rules, seed int, body []byte, attrs, types map[string]string) {
	t.Helper()
	now := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	raw := maps.Clone(attrs)
	d := r.wire.Decode(bytes.Clone(body), attrs, types)
	for k, v := range raw {
		if !ownName(k) {
			require.Equal(t, v, d.Attributes[k], "seed %d: attribute %s", seed, k)
		}
	}
	id := d.ID
	d.FillFromBroker("broker-id-1", now.Add(-time.Hour))
	d.Source = Endpoint{r.wire.System, "orders"}
	want := Message{Body: d.Body, Attributes: maps.Clone(d.Attributes)}

	letter := NewDeadLetter(d, &PanicError{Value: strings.Repeat(`bad "thing" `, 40), Stack: bytes.Repeat([]byte("main.f()\n\t/x.go:1\n"), 90)}, ReasonAge, now)
	back := r.carry(t, seed, letter, now)
	require.True(t, bytes.Equal(want.Body, back.Body), "seed %d: body", seed)
	require.Equal(t, want.Attributes, back.Attributes, "seed %d", seed)
	if back.ID != d.ID {
		require.Empty(t, back.ID, "seed %d", seed)
		require.Empty(t, id, "seed %d: an id that was on the wire must stay there", seed)
	}
	back.FillFromBroker("broker-id-2", now)
	again := r.carry(t, seed, redriven(back, now.Add(time.Hour), &RedriveOptions{}), now.Add(time.Hour))
	require.True(t, bytes.Equal(want.Body, again.Body), "seed %d: body after redrive", seed)
	require.Equal(t, want.Attributes, again.Attributes, "seed %d: after redrive", seed)
	if r.typed {
		for k, t1 := range types {
			require.Equal(t, t1, again.carriedTypes()[k], "seed %d: type of %s", seed, k)
		}
	}
}

func (d *Delivery) carriedTypes() map[string]string {
	if d.carried != nil {
		return d.carried.types
	}
	if d.meta != nil {
		return d.meta.types
	}
	return nil
}

func TestMessageTravelsAsItIsWithoutMetadata(t *testing.T) {
	t.Parallel()
	for name, r := range wires() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &Message{Body: []byte(`{"n":1}`), Attributes: map[string]string{"a": "b"}}
			p, err := r.caps().Prepare(m, time.Now())
			require.NoError(t, err)
			assert.Same(t, m, p.Message)
			enc, err := r.wire.Encode(p.Message)
			require.NoError(t, err)
			assert.Equal(t, m.Body, enc.Body)
			assert.Equal(t, m.Attributes, enc.Attributes)
			assert.Nil(t, enc.Types)
		})
	}
}

func TestBodyThatTheSystemCannotCarryComesBackTheSame(t *testing.T) {
	t.Parallel()
	bodies := map[string][]byte{
		"empty": {}, "dash": []byte("-"), "binary": {0, 1, 2, 0xff}, "control": []byte("a\x08b"), "not a character": []byte("\uFFFE"),
		"surrogate": {0xed, 0xa0, 0x80}, "text": []byte("é€😀\t\r\n"), "long binary": bytes.Repeat([]byte{0xfe, 1}, 5000),
		"invalid at the end": append(bytes.Repeat([]byte("x"), 64), 0xc3), "looks encoded": []byte("AAAA"),
	}
	for name, r := range wires() {
		for bname, body := range bodies {
			t.Run(name+"/"+bname, func(t *testing.T) {
				t.Parallel()
				for _, m := range []*Message{
					{Body: body},
					{Body: body, ID: "i1", Attributes: map[string]string{"a": "b"}},
				} {
					d := r.carry(t, 0, m, time.Now())
					assert.True(t, bytes.Equal(body, d.Body))
					assert.Equal(t, m.ID, d.ID)
					assert.Len(t, d.Attributes, len(m.Attributes))
				}
			})
		}
	}
}

func TestAttributeValueThatTheSystemCannotCarryTravelsInTheMetadata(t *testing.T) {
	t.Parallel()
	r := wires()["sqs"]
	want := map[string]string{"empty": "", "control": "a\x01b", "noncharacter": "\uFFFF\\ufffe", "plain": "p"}
	d := r.carry(t, 0, &Message{Body: []byte("b"), Attributes: want}, time.Now())
	assert.Equal(t, want, d.Attributes)
	assert.Empty(t, d.ID)
}

func TestTypesOfForeignAttributesSurvive(t *testing.T) {
	t.Parallel()
	r := wires()["sqs"]
	attrs := func() map[string]string {
		return map[string]string{"n": "17", "b": "\xff\x00", "s": "text"}
	}
	types := map[string]string{"n": "Number.int", "b": "Binary"}
	d := r.wire.Decode([]byte("x"), attrs(), types)
	t.Run("when forwarded, without metadata", func(t *testing.T) {
		p, err := r.caps().Prepare(&d.Message, time.Now())
		require.NoError(t, err)
		enc, err := r.wire.Encode(p.Message)
		require.NoError(t, err)
		assert.Equal(t, attrs(), enc.Attributes)
		assert.Equal(t, types, enc.Types)
	})
	t.Run("not for a value that a handler has changed", func(t *testing.T) {
		m := d.Message
		m.Attributes = map[string]string{"n": "many", "s": "text"}
		enc, err := r.wire.Encode(&m)
		require.NoError(t, err)
		assert.Equal(t, m.Attributes, enc.Attributes)
		assert.Empty(t, enc.Types)
	})
	t.Run("through a dead-letter queue of another system", func(t *testing.T) {
		letter := NewDeadLetter(d, errTest, ReasonAge, time.Now())
		for _, via := range []string{"pubsub", "portable"} {
			there := wires()[via].carry(t, 0, letter, time.Now())
			assert.Equal(t, attrs(), there.Attributes)
			back := r.carry(t, 0, redriven(there, time.Now(), &RedriveOptions{}), time.Now())
			assert.Equal(t, attrs(), back.Attributes)
			assert.Equal(t, types, back.carriedTypes())
		}
	})
}

func TestLongValuesAndForeignNamesGoThroughADeadLetterQueueOfAnotherSystem(t *testing.T) {
	t.Parallel()
	all := wires()
	attrs := map[string]string{"long": strings.Repeat("é", 4000), "a": "b"}
	d := all["sqs"].wire.Decode([]byte("x"), maps.Clone(attrs), nil)
	there := all["pubsub"].carry(t, 0, NewDeadLetter(d, errTest, ReasonAge, time.Now()), time.Now())
	assert.Equal(t, attrs, there.Attributes)

	attrs = map[string]string{"a name with spaces": "1", "..": "2", "AWS.x": "3", "googclient_traceparent": "4"}
	d = all["pubsub"].wire.Decode([]byte("\x00"), maps.Clone(attrs), nil)
	there = all["sqs"].carry(t, 0, NewDeadLetter(d, errTest, ReasonAge, time.Now()), time.Now())
	assert.Equal(t, attrs, there.Attributes)
	back := all["pubsub"].carry(t, 0, redriven(there, time.Now(), &RedriveOptions{}), time.Now())
	assert.Equal(t, attrs, back.Attributes)
	assert.Equal(t, []byte("\x00"), back.Body)
}

func TestMetadataIsSplitWhereValuesAreLimited(t *testing.T) {
	t.Parallel()
	r := wires()["pubsub"]
	d := &Delivery{Message: Message{ID: "i", Body: []byte("x")}}
	letter := NewDeadLetter(d, errors.New(strings.Repeat("€", 2000)), ReasonAge, time.Now())
	enc, err := r.wire.Encode(letter)
	require.NoError(t, err)
	assert.Greater(t, len(enc.Attributes), 5)
	back := r.carry(t, 0, letter, time.Now())
	assert.Equal(t, strings.Repeat("€", 2000), back.DeadLetter.Error)
	assert.Empty(t, back.Attributes)
}

func TestCheckCostsNoAllocationForOrdinaryMessages(t *testing.T) {
	cases := map[string]*Message{
		"plain":      {Body: []byte(strings.Repeat("x", 1024)), Attributes: map[string]string{"a": "1", "b": "2", "c": "3"}},
		"with an id": {ID: "0190b4b8-0b5c-7cc0-8d2a-6a1a0a9f4b33", Body: []byte(`{"é":"x"}`), Attributes: map[string]string{"a": "1"}},
		"empty":      {},
	}
	for name, r := range wires() {
		for mname, m := range cases {
			n := testing.AllocsPerRun(100, func() {
				if _, err := r.wire.check(m, nil); err != nil {
					t.Error(err)
				}
			})
			assert.Zero(t, n, "%s/%s", name, mname)
		}
	}
}

func TestOnlyWhatNeedsNothingOfTheLibraryIsPlain(t *testing.T) {
	t.Parallel()
	attrs := map[string]string{"a": "1"}
	cases := map[string]struct {
		m     *Message
		plain bool
	}{
		"body and attributes": {&Message{Body: []byte{0}, Attributes: attrs}, true},
		"no body":             {&Message{Attributes: attrs}, true},
		"ordering key":        {&Message{Body: []byte("x"), OrderingKey: "k"}, true},
		"nothing at all":      {&Message{}, false}, // Pub/Sub refuses it
		"id":                  {&Message{Body: []byte("x"), ID: "x"}, false},
		"due time":            {&Message{Body: []byte("x"), meta: &metadata{due: time.Now()}}, false},
		"dead letter":         {&Message{Body: []byte("x"), meta: &metadata{library: true}}, false},
	}
	w, xml := PubSubWire(), SQSWire()
	for name, c := range cases {
		plain, err := w.check(c.m, nil)
		require.NoError(t, err)
		assert.Equal(t, c.plain, plain, name)
		plain, err = xml.check(c.m, nil)
		require.NoError(t, err)
		assert.False(t, plain, "%s: a body may have to be encoded", name)
	}
}

// What check accepts can be encoded and fits; what it refuses doesn't.
func TestCheckIsExact(t *testing.T) {
	t.Parallel()
	for name, r := range wires() {
		r = r.limited(2000)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			taken, refused := 0, 0
			for seed := range 300 {
				rnd := rand.New(rand.NewPCG(uint64(seed), 3))
				body, attrs, _ := r.foreign(rnd)
				for k, v := range attrs {
					if ownName(k) || !utf8.ValidString(v) {
						delete(attrs, k)
					}
				}
				m := &Message{Body: body, Attributes: attrs, ID: strings.Repeat("i", rnd.IntN(30))}
				if rnd.IntN(3) == 0 {
					m.meta = &metadata{due: time.Now()}
				}
				enc, err := r.wire.Encode(m)
				plain, cerr := r.wire.check(m, nil)
				if (cerr == nil) != (err == nil) {
					t.Fatalf("seed %d: check: %v, Encode: %v", seed, cerr, err)
				}
				if err != nil {
					var le *LimitError
					require.ErrorAs(t, err, &le)
					require.Greater(t, le.Got, le.Max)
					refused++
					continue
				}
				taken++
				if plain {
					require.Equal(t, m.Body, enc.Body, "seed %d", seed)
					require.Equal(t, m.Attributes, enc.Attributes, "seed %d", seed)
					require.Empty(t, enc.Types)
				}
				require.NoError(t, r.takes(enc.Body, enc.Attributes, enc.Types), "seed %d", seed)
			}
			assert.Positive(t, taken)
			assert.Positive(t, refused)
		})
	}
}

func TestXMLBodyAgreesWithXMLText(t *testing.T) {
	t.Parallel()
	parts := []string{"x", "xxxxxxxx", " ", "\x7f", "\n", "é", "€", "😀", "\x1f", "\x00", "\x80", "\xff", "\uFFFE", "\xed\xa0\x80", "\xc3"}
	for seed := range 5000 {
		rnd := rand.New(rand.NewPCG(uint64(seed), 1))
		s, bad := "", rnd.IntN(3) == 0
		for range rnd.IntN(12) {
			if n := rnd.IntN(len(parts)); n < 8 || bad {
				s += parts[n]
			}
		}
		require.Equal(t, xmlText(s), xmlBody([]byte(s)), "%q", s)
		require.Equal(t, s != "" && utf8.ValidString(s) && !notXML.MatchString(s), xmlText(s), "%q", s)
	}
}

func TestJSONLenIsWhatMarshalWrites(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "abc", `a"b\c`, "\b\f\n\r\t\x00\x1f\x7f", "é€😀", "\u2028\u2029\uFFFE\uFFFF\uFFFD", "bad\xff\xc3", "<&>"} {
		j := metaJSON{ID: s}
		want := 0
		if s != "" {
			want = len(j.marshal()) - len(`{"id":""}`)
		}
		assert.Equal(t, want, jsonLen(s), "%q", s)
	}
}

func TestPlainASCIIIsWhatEverySystemCarries(t *testing.T) {
	t.Parallel()
	assert.False(t, plainASCII(""))
	for n := 1; n <= 40; n++ {
		text := strings.Repeat("x", n)
		assert.True(t, plainASCII(text))
		for at := range n {
			for _, c := range []byte{0, '\n', 0x1f, ' ', '~', 0x7f, 0x80, 0xff} {
				b := []byte(text)
				b[at] = c
				assert.Equal(t, c >= ' ' && c < 0x80, plainASCII(string(b)), "%q", b)
			}
		}
	}
}

func TestNamesThatOnlyLookReservedArePlain(t *testing.T) {
	t.Parallel()
	w := PortableWire()
	for name, plain := range map[string]bool{
		"tenant": true, "awsome": true, "goo": true, "a": true, "queue": true,
		"AWS.x": false, "aws.x": false, "Amazon.": false, "GOOGle": false, "queue-x": false, "": false,
		"a..b": false, ".a": false, "\u212aey": false, strings.Repeat("n", 257): false,
	} {
		assert.Equal(t, plain, w.plainName(name), name)
		assert.Equal(t, plain, w.checkName(name) == nil, name)
	}
}

func BenchmarkCheck(b *testing.B) {
	w := PortableWire()
	m := &Message{Body: []byte(strings.Repeat("x", 1024)), Attributes: map[string]string{"a": "1", "b": "2", "c": "3"}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.check(m, nil); err != nil {
			b.Fatal(err)
		}
	}
}
