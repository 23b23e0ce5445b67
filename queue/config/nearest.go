package config

import (
	"slices"
	"strings"
)

// unknown says that name isn't one of known, and which of them were probably
// meant.
func unknown(what, name string, known []string) string {
	s := what + " " + quote(name)
	if near := nearest(name, known); len(near) > 0 {
		return s + "; did you mean " + strings.Join(quoteAll(near), " or ") + "?"
	}
	if len(known) == 0 {
		return s + "; there are none"
	}
	sorted := slices.Sorted(slices.Values(known))
	if len(sorted) > 12 {
		return s
	}
	return s + "; known: " + strings.Join(sorted, ", ")
}

// nearest returns the at most three of known that are close enough to name to
// be what was meant, the closest first.
func nearest(name string, known []string) []string {
	type candidate struct {
		name     string
		distance int
	}
	var found []candidate
	for _, k := range known {
		if d := distance(strings.ToLower(name), strings.ToLower(k)); d <= max(1, min(len(name), len(k))/3) {
			found = append(found, candidate{k, d})
		}
	}
	slices.SortFunc(found, func(a, b candidate) int {
		if a.distance != b.distance {
			return a.distance - b.distance
		}
		return strings.Compare(a.name, b.name)
	})
	if len(found) > 3 {
		found = found[:3]
	}
	out := make([]string, len(found))
	for i, c := range found {
		out[i] = c.name
	}
	return out
}

// distance is the number of letters to insert, remove, replace or swap with
// their neighbour to get from a to b (optimal string alignment).
func distance(a, b string) int {
	const longest = 128 // names and keys are shorter; keeps foreign input cheap
	if len(a) > longest || len(b) > longest {
		return max(len(a), len(b))
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

func quoteAll(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = quote(n)
	}
	return out
}
