package batcher

// Halves sends a request in two, after it was refused as a whole for what may be
// one of its items, or for their number: that mustn't fail the items of other
// callers. Of a Key whose item has failed in the first half, the second is sent
// later.
func Halves[T any](batch []*Item[T], send func([]*Item[T]) Report) Report {
	half := len(batch) / 2
	report := send(batch[:half])
	failed := map[string]error{} // by key
	for i, r := range report.Results {
		if key := batch[i].Key; key != "" && r.Err != nil {
			failed[key] = r.Err
		}
	}
	rest := make([]*Item[T], 0, len(batch)-half)
	for _, it := range batch[half:] {
		if failed[it.Key] == nil {
			rest = append(rest, it)
		}
	}
	var second Report
	if len(rest) > 0 {
		second = send(rest)
	}
	next := 0
	for _, it := range batch[half:] {
		if err := failed[it.Key]; err != nil { // it mustn't overtake that one
			report.Results = append(report.Results, Result{Err: err, Again: true})
			continue
		}
		report.Results = append(report.Results, second.Results[next])
		next++
	}
	report.Slow = report.Slow || second.Slow
	return report
}
