package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestAPartAloneNeedsQueuesThatOthersCanReach(t *testing.T) {
	t.Parallel()
	var stderr bytes.Buffer
	code := run(t.Context(), []string{"-role", "worker"}, func(string) string { return "" }, &bytes.Buffer{}, &stderr)
	assert.Equal(t, 1, code)
	assert.Contains(t, stderr.String(), "can't be shared by processes: set QUEUE_BACKEND")
}
