package queuetest

import (
	"fmt"
	"strings"
	"testing"
)

// failures collects what a check says instead of failing.
type failures struct {
	testing.TB
	said []string
}

func (f *failures) Helper() {}
func (f *failures) Errorf(format string, args ...any) {
	f.said = append(f.said, fmt.Sprintf(format, args...))
}

func TestTheTablesNameOnlyTestsThatExist(t *testing.T) {
	t.Parallel()
	f := &failures{}
	checkTables(f, themes())
	if len(f.said) > 0 {
		t.Errorf("the tables are wrong: %q", f.said)
	}
}

func TestASkipWithoutItsTestFails(t *testing.T) {
	t.Parallel()
	all := themes()
	for i, th := range all {
		if th.name == "Subscriber" {
			all = append(all[:i:i], all[i+1:]...)
			break
		}
	}
	f := &failures{}
	checkTables(f, all)
	if got := strings.Join(f.said, "\n"); !strings.Contains(got, "Subscriber/AStaleSettlementHarmsNobody") {
		t.Errorf("a listed skip has no test, and the suite said %q", got)
	}
}

func TestARuleWithoutAReasonOrWithATakenNameFails(t *testing.T) {
	t.Parallel()
	f := &failures{}
	all := append(themes(), theme{"Publish", []rule{{name: "AMessageArrivesAsItWasSent", why: "again"}, {name: "NoWhy"}}})
	checkTables(f, all)
	got := strings.Join(f.said, "\n")
	for _, want := range []string{`two tests are named "Publish/AMessageArrivesAsItWasSent"`, `"Publish/NoWhy" doesn't say why`} {
		if !strings.Contains(got, want) {
			t.Errorf("the suite said %q, want %s in it", got, want)
		}
	}
}

func TestSkipsAreForTheBackendThatTheyName(t *testing.T) {
	t.Parallel()
	const name = "Delay/ALongDelayIsKept"
	for _, c := range []struct {
		what string
		h    Harness
		want bool
	}{
		{"a real server", Harness{Name: "sqs-standard"}, true},
		{"virtual time", Harness{Name: "memory", Virtual: true}, false},
	} {
		if _, got := skipReason(&c.h, name); got != c.want {
			t.Errorf("%s: skipped is %v, want %v", c.what, got, c.want)
		}
	}
}
