package queue

import (
	"bytes"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestForeignAttributesStayAsTheyCame(t *testing.T) {
	t.Parallel()
	cases := map[string]map[string]string{
		"none":                           nil,
		"plain":                          {"a": "b", "queue-depth": "7"},
		"metadata that's no JSON":        {MetaAttribute: "hello"},
		"metadata cut off":               {MetaAttribute: `{"id":"x`},
		"metadata of another type":       {MetaAttribute: `{"id":7}`},
		"metadata that's null":           {MetaAttribute: `null`},
		"metadata that's a list":         {MetaAttribute: `["id"]`},
		"metadata with fields unknown":   {MetaAttribute: `{"tenant":"x"}`},
		"empty metadata":                 {MetaAttribute: `{}`},
		"metadata with something behind": {MetaAttribute: `{"id":"x"} y`},
		"metadata with junk as its 2nd":  {MetaAttribute: `{"id":"x"}`, MetaAttribute + "-2": "junk"},
		"only the second part":           {MetaAttribute + "-2": `{"id":"x"}`},
		"a time that isn't one":          {MetaAttribute: `{"dl":{"first":"yesterday"}}`},
		"unknown encoding":               {EncodingAttribute: "gzip"},
		"encoding that doesn't fit":      {EncodingAttribute: EncodingBase64},
		"empty, but it isn't":            {EncodingAttribute: EncodingEmpty},
		"more in the metadata than fits": {MetaAttribute: `{"attrs":{"a":"\u0001` + strings.Repeat("\u2028", 330) + `"}}`, "full": strings.Repeat("x", 500)},
	}
	w := PortableWire()
	w.MaxBytes = 1700
	for name, attrs := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := w.Decode([]byte("no base64!"), maps.Clone(attrs), nil)
			assert.Equal(t, attrs, d.Attributes)
			assert.Equal(t, "no base64!", string(d.Body))
			assert.Empty(t, d.ID)
			assert.Nil(t, d.DeadLetter)
		})
	}
}

func TestMetadataOfForeignProducersIsRead(t *testing.T) {
	t.Parallel()
	d := SQSWire().Decode([]byte("x"), map[string]string{
		"a":                  "native",
		MetaAttribute:        "{ \"id\": \"i-1\", \"due\": 1763798400000, \"n\": -5, \"new\": {},",
		MetaAttribute + "-2": `"attrs": {"a": "folded", "b": "1"}, "bin": {"c": "/w=="}, "dl": {"n": 99999999999, "re": -1}}`,
	}, nil)
	assert.Equal(t, "i-1", d.ID)
	assert.Equal(t, time.UnixMilli(1763798400000), d.Due())
	assert.Equal(t, map[string]string{"a": "native", "b": "1", "c": "\xff"}, d.Attributes, "what came as an attribute wins")
	assert.Zero(t, d.Failures)
	assert.Equal(t, 1<<30, d.DeadLetter.Failures)
	assert.Zero(t, d.DeadLetter.Redriven)
	assert.Equal(t, "i-1", d.DeadLetter.ID)
}

func TestTimesThatCannotBeWrittenDoNotLoseTheRest(t *testing.T) {
	t.Parallel()
	r := wires()["sqs"]
	d := &Delivery{Message: Message{ID: "i", Body: []byte("x"), Attributes: map[string]string{"e": ""}}}
	d.EnqueuedAt = time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)
	back := r.carry(t, 0, NewDeadLetter(d, errTest, ReasonAge, time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC)), time.Now())
	assert.Equal(t, map[string]string{"e": ""}, back.Attributes)
	assert.Equal(t, errTest.Error(), back.DeadLetter.Error)
	assert.True(t, back.DeadLetter.FirstAt.IsZero())
	assert.True(t, back.DeadLetter.LastAt.IsZero())
	assert.True(t, back.EnqueuedAt.IsZero())

	d = r.wire.Decode([]byte("x"), map[string]string{MetaAttribute: `{"attrs":{"e":""},"dl":{"last":"9999-12-31T23:59:59-23:59"}}`}, nil)
	require.NotNil(t, d.DeadLetter)
	assert.True(t, d.DeadLetter.LastAt.IsZero())
	back = r.carry(t, 0, redriven(d, time.Now(), &RedriveOptions{}), time.Now())
	assert.Equal(t, map[string]string{"e": ""}, back.Attributes)
}

func TestHopKeepsWhatIsKnownAboutAMessage(t *testing.T) {
	t.Parallel()
	first := time.Date(2026, 11, 20, 1, 2, 3, 4e6, time.UTC)
	until := first.Add(72 * time.Hour)
	for name, r := range wires() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := r.wire.Decode([]byte("body"), map[string]string{"a": "b"}, nil)
			d.FillFromBroker("b-1", first)
			d.OrderingKey = "k"
			s := Settlement{Delivery: d, Kind: Defer, Until: until, failures: 3}
			p, err := (&Capabilities{Wire: r.wire, Ordering: true}).Prepare(s.Hop(), first)
			require.NoError(t, err)
			assert.Equal(t, until, p.Due)
			enc, err := r.wire.Encode(p.Message)
			require.NoError(t, err)
			back := r.wire.Decode(enc.Body, enc.Attributes, enc.Types)
			back.FillFromBroker("b-2", first.Add(time.Hour))
			assert.Equal(t, "b-1", back.ID)
			assert.Equal(t, "b-2", back.BrokerID)
			assert.True(t, back.EnqueuedAt.Equal(first))
			assert.True(t, back.Due().Equal(until))
			assert.True(t, back.AgeFrom().Equal(first), "coming back later doesn't make it younger")
			assert.Equal(t, 3, back.Failures)
			assert.Equal(t, map[string]string{"a": "b"}, back.Attributes)
		})
	}
}

func TestHopThatCannotCarryItsDueTimeIsRefusedRatherThanEarly(t *testing.T) {
	t.Parallel()
	r := wires()["sqs"].limited(1000)
	d := r.wire.Decode(bytes.Repeat([]byte("x"), 1000), map[string]string{}, nil)
	d.FillFromBroker("b-1", time.Now())
	s := Settlement{Delivery: d, Kind: Defer, Until: time.Now().Add(time.Hour)}
	_, err := r.caps().Prepare(s.Hop(), time.Now())
	var le *LimitError
	require.ErrorAs(t, err, &le)
}

func TestDueTimeIsNeverEarlyByRounding(t *testing.T) {
	t.Parallel()
	due := time.Date(2026, 1, 2, 3, 4, 5, 6_000_001, time.UTC)
	m := &Message{meta: &metadata{due: due}}
	d := wires()["sqs"].carry(t, 0, m, due)
	assert.False(t, d.Due().Before(due))
	assert.Less(t, d.Due().Sub(due), time.Millisecond)
}

func TestWhatAHandlerDoesToItsDeliveryStaysWithIt(t *testing.T) {
	t.Parallel()
	letter := NewDeadLetter(&Delivery{Message: Message{ID: "i"}}, errTest, ReasonFailures, time.Now())
	native := NewDelivery(*letter)
	for name, d := range map[string]*Delivery{"decoded": wires()["sqs"].carry(t, 0, letter, time.Now()), "native": native} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d.DeadLetter.Error = "changed"
			again := NewDelivery(*hopMessage(d, time.Time{}, 0))
			assert.Equal(t, errTest.Error(), again.DeadLetter.Error)
		})
	}
	assert.Equal(t, errTest.Error(), letter.meta.deadLetter.Error)
}

func TestNativeDeliveryHasNothingOfItsPublishing(t *testing.T) {
	t.Parallel()
	d := NewDelivery(Message{ID: "i", Body: []byte("x"), Delay: time.Hour, DedupID: "d", Options: []MessageOption{Hint(nil)}, OrderingKey: "k"})
	assert.Equal(t, Message{ID: "i", Body: []byte("x"), OrderingKey: "k"}, d.Message)
}

func TestForwardedMessageKeepsItsHistoryAndGetsANewAge(t *testing.T) {
	t.Parallel()
	r := wires()["sqs"]
	old := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now := old.Add(1000 * time.Hour)
	attrs := map[string]string{}
	for _, k := range strings.Split("abcdefghij", "") {
		attrs[k] = k
	}
	d := r.wire.Decode([]byte("x"), maps.Clone(attrs), nil)
	d.FillFromBroker("b", old)
	letter := r.carry(t, 0, NewDeadLetter(d, errTest, ReasonAge, old.Add(time.Hour)), now)
	back := r.carry(t, 0, &letter.Message, now)
	assert.Equal(t, attrs, back.Attributes)
	assert.Equal(t, "b", back.ID)
	assert.True(t, back.EnqueuedAt.Equal(old))
	assert.True(t, back.AgeFrom().Equal(now))
	assert.Equal(t, errTest.Error(), back.DeadLetter.Error)
	assert.Zero(t, back.Failures)
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("body"), "a", "1", `{"id":"x"}`, "", "", "Number")
	f.Add([]byte("AAAA"), "", "", "", "", EncodingBase64, "")
	f.Add([]byte("-"), "queue-meta-3", "z", `{"id":"x`, `"}`, EncodingEmpty, "Binary")
	f.Add([]byte{0xff}, "b", "\xff", `{"attrs":{"b":"1","queue-meta":"q"},"bin":{"c":"AA=="},"types":{"b":"Binary"}}`, "", "gzip", "Binary")
	f.Add([]byte{}, "dl", "é", `{"dl":{"first":"2026-01-01T00:00:00Z","src":{"System":"x"},"n":-1},"enq":-1,"due":9e18}`, "", "", "")
	f.Add([]byte{}, "x", "y", `{"due":9223372036854775807,"enq":1,"age":253402300799999,"n":9223372036854775807,"key":"k"}`, "", "", "")
	f.Fuzz(func(t *testing.T, body []byte, name, value, meta, meta2, encoding, kind string) {
		for wname, r := range wires() {
			attrs := map[string]string{}
			for k, v := range map[string]string{MetaAttribute: meta, MetaAttribute + "-2": meta2, EncodingAttribute: encoding, name: value} {
				if v != "" {
					attrs[k] = v
				}
			}
			var types map[string]string
			if kind != "" && attrs[name] != "" {
				types = map[string]string{name: kind}
			}
			raw, rawBody := maps.Clone(attrs), bytes.Clone(body)
			d := r.wire.Decode(body, attrs, maps.Clone(types))
			for k, v := range raw {
				if got, ok := d.Attributes[k]; !ownName(k) && (!ok || got != v) {
					t.Fatalf("%s: attribute %q is %q, was %q", wname, k, got, v)
				}
			}
			if _, kept := d.Attributes[EncodingAttribute]; kept && raw[EncodingAttribute] == d.Attributes[EncodingAttribute] && !bytes.Equal(d.Body, rawBody) {
				t.Fatalf("%s: the body was decoded and its encoding was kept", wname)
			}
			if d.carried == nil && d.Attributes[MetaAttribute] != raw[MetaAttribute] {
				t.Fatalf("%s: metadata that wasn't understood didn't stay", wname)
			}
			d.FillFromBroker("id", time.Unix(1, 0))
			_, _, _ = d.AgeFrom(), d.Due(), Fingerprint(errors.New(value))
			// What the service can have carried it can carry as a dead letter.
			if r.takes(rawBody, raw, onlyTyped(r, types)) != nil {
				continue
			}
			d = r.wire.Decode(bytes.Clone(rawBody), maps.Clone(raw), onlyTyped(r, types))
			want, wantBody := maps.Clone(d.Attributes), bytes.Clone(d.Body)
			d.FillFromBroker("id", time.Unix(1, 0))
			back := r.carry(t, 0, NewDeadLetter(d, errors.New(value), ReasonAge, time.Unix(2, 0)), time.Unix(2, 0))
			if !bytes.Equal(back.Body, wantBody) || !maps.Equal(back.Attributes, want) {
				t.Fatalf("%s: %q %q came back as %q %q", wname, wantBody, want, back.Body, back.Attributes)
			}
		}
	})
}

func onlyTyped(r rules, types map[string]string) map[string]string {
	if !r.typed {
		return nil
	}
	return maps.Clone(types)
}

func fuzzRoundTrip(f *testing.F, r rules) {
	f.Add([]byte("body"), "a", "1", "id-1", int64(0), false)
	f.Add([]byte{}, "a.b", "", "", int64(1), true)
	f.Add([]byte{0, 0xff}, "b", "\x00", "\u2028\uFFFF", int64(1763798400000), true)
	f.Add(bytes.Repeat([]byte("\x01"), 2000), "c", strings.Repeat(`"`, 1024), strings.Repeat("\x00", 300), int64(1), true)
	f.Fuzz(func(t *testing.T, body []byte, name, value, id string, due int64, many bool) {
		m := &Message{ID: id, Body: body, Attributes: map[string]string{name: value}}
		if many {
			for _, k := range strings.Split("k0 k1 k2 k3 k4 k5 k6 k7", " ") {
				m.Attributes[k] = "v"
			}
		}
		now := time.UnixMilli(1)
		if due > 0 && due < maxMilli {
			m.DeliverAt = time.UnixMilli(due)
		}
		caps := r.caps()
		p, err := caps.Prepare(m, now)
		if err != nil {
			var le *LimitError
			if !errors.As(err, &le) && !errors.Is(err, ErrInvalid) {
				t.Fatalf("an error of no kind: %v", err)
			}
			if utf8.ValidString(id) && r.name.MatchString(name) && !errors.As(err, &le) && utf8.ValidString(value) && utf8.ValidString(name) && r.wire.reserved(name) == "" && !strings.HasPrefix(name, ReservedPrefix) {
				t.Fatalf("refused: %v", err)
			}
			return
		}
		enc, err := r.wire.Encode(p.Message)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.takes(enc.Body, enc.Attributes, enc.Types); err != nil {
			t.Fatal(err)
		}
		d := r.wire.Decode(bytes.Clone(enc.Body), maps.Clone(enc.Attributes), enc.Types)
		if !bytes.Equal(d.Body, body) || !maps.Equal(d.Attributes, m.Attributes) || d.ID != id || !d.Due().Equal(p.Due) {
			t.Fatalf("sent %+v, got %+v", m, d)
		}
	})
}

func FuzzRoundTripSQS(f *testing.F)      { fuzzRoundTrip(f, wires()["sqs"]) }
func FuzzRoundTripPubSub(f *testing.F)   { fuzzRoundTrip(f, wires()["pubsub"]) }
func FuzzRoundTripPortable(f *testing.F) { fuzzRoundTrip(f, wires()["portable"]) }
