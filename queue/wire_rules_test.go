package queue

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// rules are what a service says about its messages, written down here again so
// that the encoder isn't its own judge.
type rules struct {
	wire       Wire
	maxBytes   int
	maxAttrs   int
	maxValue   int
	typed, xml bool
	name       *regexp.Regexp
}

func wires() map[string]rules {
	sqsName := regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)
	return map[string]rules{
		"sqs":      {wire: SQSWire(), maxBytes: 1048576, maxAttrs: 10, maxValue: 1048576, typed: true, xml: true, name: sqsName},
		"pubsub":   {wire: PubSubWire(), maxBytes: 10_000_000, maxAttrs: 100, maxValue: 1024, name: regexp.MustCompile(`(?s)^.+$`)},
		"portable": {wire: PortableWire(), maxBytes: 1048576, maxAttrs: 10, maxValue: 1024, xml: true, name: sqsName},
	}
}

// limited returns the same rules for a queue that takes smaller messages, so that
// many full ones can be tried.
func (r rules) limited(n int) rules {
	r.maxBytes, r.wire.MaxBytes, r.wire.ReserveBytes = n, n, 0
	return r
}

func (r rules) caps() *Capabilities {
	return &Capabilities{Source: Endpoint{System: r.wire.System, Name: "q"}, Wire: r.wire, Delays: true}
}

var notXML = regexp.MustCompile("[\x00-\x08\x0b\x0c\x0e-\x1f\uFFFE\uFFFF]")

func (r rules) size(body []byte, attrs, types map[string]string) int {
	n := len(body)
	for k, v := range attrs {
		kind := "String"
		if t := types[k]; t != "" && r.typed {
			kind = t
		}
		n += len(k) + len(v) + len(kind)
	}
	return n
}

// takes tells why the service would refuse what is sent to it.
func (r rules) takes(body []byte, attrs, types map[string]string) error {
	text := func(s string) bool { return s != "" && utf8.ValidString(s) && !notXML.MatchString(s) }
	if r.xml && !text(string(body)) {
		return errors.New("body isn't text")
	}
	if len(attrs) > r.maxAttrs {
		return fmt.Errorf("%d attributes", len(attrs))
	}
	if len(body) == 0 && len(attrs) == 0 {
		return errors.New("no content")
	}
	for k, v := range attrs {
		binary := r.typed && strings.HasPrefix(types[k], "Binary")
		switch {
		case !r.name.MatchString(k) || len(k) > 256 || !utf8.ValidString(k):
			return fmt.Errorf("name %q", k)
		case len(v) > r.maxValue:
			return fmt.Errorf("value of %q has %d bytes", k, len(v))
		case !binary && !utf8.ValidString(v), r.xml && !binary && !text(v), binary && v == "":
			return fmt.Errorf("value of %q is %q", k, v)
		}
	}
	if len(types) > 0 && !r.typed {
		return errors.New("types")
	}
	for k := range types {
		if _, ok := attrs[k]; !ok {
			return fmt.Errorf("type of %q, which isn't there", k)
		}
	}
	if n := r.size(body, attrs, types); n > r.maxBytes {
		return fmt.Errorf("%d bytes", n)
	}
	return nil
}

// foreign makes a message as any producer may have sent it, mostly as full as
// the service takes.
func (r rules) foreign(rnd *rand.Rand) (body []byte, attrs, types map[string]string) {
	attrs = map[string]string{}
	alphabet := []string{"a", "b", "0", " ", `"`, `\`, "\n", "<", "&", "é", "€", "\u2028", "😀", "\uFFFD", "\x7f"}
	if !r.xml {
		alphabet = append(alphabet, "\x00", "\x01", "\uFFFE")
	}
	text := func(n int) string {
		if rnd.IntN(2) == 0 {
			return strings.Repeat("x", n)
		}
		var b strings.Builder
		for b.Len() < n {
			s := alphabet[rnd.IntN(len(alphabet))]
			if n > 1000 {
				s = strings.Repeat(s, n/500)
			}
			if b.Len()+len(s) > n {
				s = "x"
			}
			b.WriteString(s)
		}
		return b.String()
	}
	room := r.maxBytes - 64
	add := func(k, v string) {
		if _, ok := attrs[k]; !ok && len(k)+len(v)+6 <= room && len(attrs) < r.maxAttrs {
			attrs[k] = v
			room -= len(k) + len(v) + 6
		}
	}
	switch rnd.IntN(9) {
	case 0: // somebody else's attributes with our names
		add(MetaAttribute, text(1+rnd.IntN(30)))
	case 1:
		add(MetaAttribute, `{"foo":"`+strings.Repeat("x", rnd.IntN(50))+`"}`)
		add(MetaAttribute+"-2", text(3))
	case 2:
		add(EncodingAttribute, []string{"gzip", EncodingBase64, EncodingEmpty}[rnd.IntN(3)])
	case 3: // our metadata, written by somebody else
		add(MetaAttribute, `{"id":"`+strings.Repeat("i", 1+rnd.IntN(40))+`", "n":3,"attrs":{"f1":"`+strings.Repeat("y", rnd.IntN(60))+`","f2":"\u0001","queue-meta":"z","":"e"},"bin":{"b":"AP8="}}`)
	case 4:
		add(MetaAttribute, `{"attrs":{"f1":"`+strings.Repeat("\u2028", rnd.IntN(50))+`"}}`)
	case 5:
		add(EncodingAttribute, EncodingBase64)
		add(MetaAttribute, "?")
	}
	n := []int{0, rnd.IntN(r.maxAttrs + 1), r.maxAttrs, r.maxAttrs}[rnd.IntN(4)]
	for i := 0; len(attrs) < n && i < 200; i++ {
		add(fmt.Sprintf("k%d", rnd.IntN(1000)), text(1+rnd.IntN(min(60, r.maxValue))))
	}
	if r.typed {
		for k := range attrs {
			if t := rnd.IntN(12); t < 2 && len(attrs[k]) > 1 && !ownName(k) {
				if types == nil {
					types = map[string]string{}
				}
				types[k] = []string{"Binary", "String.note"}[t]
				if t == 0 {
					attrs[k] = attrs[k][:len(attrs[k])-1] + "\xff"
				}
			}
		}
	}
	rest := r.maxBytes - r.size(nil, attrs, types)
	switch rnd.IntN(6) {
	case 0:
		rest = 0
	case 1:
		rest = rnd.IntN(rest + 1)
	case 2:
		rest -= rnd.IntN(min(rest, 100) + 1)
	}
	if rest == 0 && (r.xml || len(attrs) == 0) {
		rest = 1
	}
	body = []byte(text(rest))
	if attrs[EncodingAttribute] == EncodingBase64 && rest >= 4 && rnd.IntN(2) == 0 {
		raw := make([]byte, rest/4*3)
		raw[0] = 0xff
		body = base64.StdEncoding.AppendEncode(nil, raw)
	}
	return body, attrs, types
}

// carry sends m through the rules' service and returns what arrives.
func (r rules) carry(t *testing.T, seed int, m *Message, now time.Time) *Delivery {
	t.Helper()
	p, err := r.caps().Prepare(m, now)
	require.NoError(t, err, "seed %d", seed)
	enc, err := r.wire.Encode(p.Message)
	require.NoError(t, err, "seed %d", seed)
	require.NoError(t, r.takes(enc.Body, enc.Attributes, enc.Types), "seed %d", seed)
	require.Equal(t, r.size(enc.Body, enc.Attributes, enc.Types), enc.Size, "seed %d", seed)
	attrs := maps.Clone(enc.Attributes)
	if attrs == nil {
		attrs = map[string]string{}
	}
	return r.wire.Decode(bytes.Clone(enc.Body), attrs, enc.Types)
}
