package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestLogOfSingleDeliveriesIsLeftOut(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		verbose bool
		want    []string
		not     []string
	}{
		"by default": {false, []string{"receive failed"}, []string{"retry", "consuming"}},
		"verbose":    {true, []string{"receive failed", "retry", "consuming"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			log := newLogger(&out, tc.verbose).With("a", 1).WithGroup("g")
			log.Info("consuming")
			log.Warn("retry")
			log.Error("receive failed")
			for _, w := range tc.want {
				assert.Contains(t, out.String(), w)
			}
			for _, n := range tc.not {
				assert.NotContains(t, out.String(), n)
			}
		})
	}
}
