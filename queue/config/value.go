package config

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// off undoes a default where that's possible.
const off = "off"

// What values look like, for the parser and the schema alike: what doesn't match is
// refused by both.
const (
	decimal         = `([0-9]+(\.[0-9]*)?|\.[0-9]+)`
	units           = `(` + decimal + `(ns|us|µs|μs|ms|s|m|h))`
	durationPattern = `[0-9]+d` + units + `*|` + units + `+`
	ratePattern     = `\s*\+?` + decimal + `([eE][+-]?[0-9]+)?\s*/\s*[smhd]\s*`
	numberPattern   = `[+-]?` + decimal + `([eE][+-]?[0-9]+)?`
	intPattern      = `[+-]?[0-9]+`
	boolPattern     = `[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]`
)

var (
	durationShape = regexp.MustCompile(`^(0|` + durationPattern + `)$`)
	rateShape     = regexp.MustCompile(`^` + ratePattern + `$`)
	numberShape   = regexp.MustCompile(`^` + numberPattern + `$`)
)

// parseDuration takes what time.ParseDuration takes, and days: 90s, 1h30m, 2d,
// 1d12h. The reason is empty when s is a duration that isn't negative.
func parseDuration(s string) (d time.Duration, reason string) {
	days, rest, hasDays := strings.Cut(s, "d")
	if hasDays {
		n, err := strconv.ParseUint(days, 10, 31)
		if err != nil || n > uint64(math.MaxInt64/(24*time.Hour)) {
			return 0, notDuration(s)
		}
		d = time.Duration(n) * 24 * time.Hour
		if rest == "" {
			return d, ""
		}
		s, rest = rest, s
	} else {
		rest = s
	}
	more, err := time.ParseDuration(s)
	switch {
	case err != nil && isNumber(rest):
		return 0, rest + " has no unit; write " + rest + "s for seconds"
	case err != nil || hasDays && strings.ContainsAny(s, "+-"):
		return 0, notDuration(rest)
	case more < 0:
		return 0, rest + " is negative"
	case d+more < d || !durationShape.MatchString(rest):
		return 0, notDuration(rest)
	}
	return d + more, ""
}

func notDuration(s string) string {
	return quote(s) + " isn't a duration such as 500ms, 30s, 1h30m or 2d"
}

func isNumber(s string) bool {
	f, err := strconv.ParseFloat(s, 64)
	return err == nil && !math.IsInf(f, 0) && !math.IsNaN(f)
}

// wrongRate is what middleware.RateLimit can't count.
const wrongRate = "isn't between 1000000/s and one in 30 years"

// rateWorks reports whether a rate by second can be kept; 0 is none.
func rateWorks(rate float64) bool {
	return rate == 0 || rate >= 1e-9 && rate <= 1e6
}

// maxFactor is where a delay grows to its longest with the first failure or two.
const maxFactor = 1000

const notExhausted = "isn't skip or block"

// parseRate takes a number by second, minute, hour or day: 50/s, 1000/h. The
// result is by second.
func parseRate(s string) (rate float64, reason string) {
	num, unit, hasUnit := strings.Cut(s, "/")
	per := map[string]float64{"s": 1, "m": 60, "h": 3600, "d": 86400}[strings.TrimSpace(unit)]
	n, err := strconv.ParseFloat(strings.TrimSpace(num), 64)
	switch {
	case !hasUnit && isNumber(s):
		return 0, s + " has no unit; write " + s + "/s, /m, /h or /d"
	case err != nil || per == 0 || math.IsNaN(n) || math.IsInf(n, 0):
		return 0, quote(s) + " isn't a rate such as 50/s, 100/m or 1000/h"
	case n <= 0:
		return 0, s + " isn't over 0"
	case !rateShape.MatchString(s):
		return 0, quote(s) + " isn't a rate such as 50/s, 100/m or 1000/h"
	case !rateWorks(n / per):
		return 0, s + " " + wrongRate
	}
	return n / per, ""
}

// parseInt takes a whole number from least to most; most 0: without an end.
func parseInt(s string, least, most int) (n int, reason string) {
	n, err := strconv.Atoi(s)
	switch {
	case err != nil:
		return 0, quote(s) + " isn't a whole number"
	case n < 0:
		return 0, s + " is negative"
	case n < least:
		return 0, s + " is under " + strconv.Itoa(least)
	case most > 0 && n > most:
		return 0, s + " is over " + strconv.Itoa(most)
	}
	return n, ""
}

// parseNumber takes a number from least to most.
func parseNumber(s string, least, most float64) (n float64, reason string) {
	n, err := strconv.ParseFloat(s, 64)
	switch {
	case err != nil || !numberShape.MatchString(s):
		return 0, quote(s) + " isn't a number"
	case n < least || n > most:
		return 0, fmt.Sprintf("%s isn't from %v to %v", s, least, most)
	}
	return n, ""
}

// parseBool takes the words of YAML 1.2; "yes" and "on" mean other things to
// other readers of the file.
func parseBool(s string) (b bool, reason string) {
	switch strings.ToLower(s) {
	case "true":
		return true, ""
	case "false":
		return false, ""
	}
	return false, quote(s) + " isn't true or false"
}

// quote is for error texts: short, and on one line.
func quote(s string) string {
	const longest = 60
	if len(s) > longest {
		s = strings.ToValidUTF8(s[:longest], "") + "..."
	}
	return strconv.Quote(s)
}
