package cloudtest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestOnlyThisRunsAndCrashedRunsResourcesAreDeleted(t *testing.T) {
	t.Parallel()
	const mine = "anyqueue-ci-20261122T100000Z-1a2b-"
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for name, want := range map[string]bool{
		mine + "a":          true,
		mine + "b.fifo":     true,
		mine + "c.return":   true,
		"other-" + mine:     false,
		"orders":            false,
		"anyqueue-ci-":      false,
		"anyqueue-ci-order": false,
		"anyqueue-ci-20261122T100000Z-9z9z-another-run-that-began-then": false,
		"anyqueue-ci-20261121T100001Z-aaaa-not-a-day-old":               false,
		"anyqueue-ci-20261121T095959Z-aaaa-old":                         true,
		"anyqueue-ci-20250101T000000Z-bbbb-older.fifo":                  true,
		"anyqueue-ci-20250101T000000Z-of-a-person":                      true, // who should have named it otherwise
		"anyqueue-ci-20250101-of-a-person":                              false,
		"anyqueue-ci-99999999T999999Z-aaaa-no-date":                     false,
		"my-anyqueue-ci-20250101T000000Z-bbbb-x":                        false,
	} {
		assert.Equal(t, want, Deletable(name, mine, now), name)
	}
	assert.False(t, Deletable("orders", "", now), "nobody's run")
}

func TestRequestsAreCountedWithTheirPrice(t *testing.T) {
	t.Parallel()
	var r Requests
	assert.Equal(t, "0 requests, about $0.000000: ", r.String())
	r.Add("Pull", 0.25)
	r.Add("Ack", 0)
	r.Add("Pull", 0.5)
	assert.Equal(t, "3 requests, about $0.750000: Ack 1, Pull 2", r.String())
}
