package queue

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestCheckName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"abc", "orders", "CRM-leads_2", "a" + strings.Repeat("b", 74), "goat"} {
		assert.NoError(t, CheckName(name), name)
	}
	for _, name := range []string{
		"", "ab", "a" + strings.Repeat("b", 75), "1abc", "-abc", "_abc", "a.b", "orders.fifo", "a b", "abc\n", "büro", "google", "GOOGle-x", "https://x",
	} {
		assert.ErrorIs(t, CheckName(name), ErrInvalid, "%q", name)
	}
}
