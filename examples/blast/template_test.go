package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMailIsPersonal(t *testing.T) {
	t.Parallel()
	m := mailFor("ada")
	mail, err := render(m, &Customer{ID: "ada", Email: "ada@example.com", Name: "Tom & <Ana>\r\nBcc: all@example.com"})
	require.NoError(t, err)
	assert.Equal(t, m.ID(), mail.ID)
	assert.Equal(t, "ada@example.com", mail.To)
	assert.Equal(t, "Tom & <Ana> Bcc: all@example.com, first look", mail.Subject, "one line")
	assert.Contains(t, mail.Text, "Hello Tom & <Ana>")
	assert.Contains(t, mail.HTML, "Hello Tom &amp; &lt;Ana&gt;")
	assert.Contains(t, mail.Text, "/unsubscribe/"+m.ID())
	assert.Contains(t, mail.HTML, "/unsubscribe/"+m.ID())
}

func TestMailToSomebodyWithoutName(t *testing.T) {
	t.Parallel()
	mail, err := render(mailFor("ada"), &Customer{Email: "ada@example.com"})
	require.NoError(t, err)
	assert.Contains(t, mail.Text, "Hello there,")
}

func TestCount(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1: "-1", -1000: "-1,000", -123: "-123"} {
		assert.Equal(t, want, count(n))
	}
}
