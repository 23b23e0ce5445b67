package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
)

// report is the result, also as JSON.
type report struct {
	Go      string                        `json:"go"`
	CPUs    int                           `json:"cpus"`
	Load    string                        `json:"load,omitempty"` // at the start: of 1, 5 and 15 minutes
	Rounds  int                           `json:"rounds"`
	Window  int                           `json:"window"`
	SQS     string                        `json:"sqs,omitempty"`    // the server, and how many rounds
	PubSub  string                        `json:"pubsub,omitempty"` // the same
	Figures map[string]map[string]figures `json:"figures"`          // by measurement and system
	Targets []target                      `json:"targets"`

	order []string
}

// target is something to reach.
type target struct {
	Name    string  `json:"name"`
	Want    float64 `json:"want"`
	Got     float64 `json:"got"`
	Unit    string  `json:"unit,omitempty"`
	Atleast bool    `json:"at_least,omitempty"` // otherwise at most
	Reached bool    `json:"reached"`

	Figure     float64 `json:"figure"` // what was measured, where Got is a ratio
	FigureUnit string  `json:"figure_unit,omitempty"`
	Floor      float64 `json:"floor,omitempty"`
	Peer       peer    `json:"peer,omitzero"`

	missing bool // no peer was measured
}

// peer is the better one.
type peer struct {
	name  string
	value float64
}

// MarshalText makes a peer one string.
func (p peer) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%s %s", p.name, plain(p.value)), nil
}

func newReport(o options) *report {
	r := &report{
		Go: runtime.Version(), CPUs: runtime.GOMAXPROCS(0), Rounds: o.rounds, Window: o.window,
		Figures: map[string]map[string]figures{}, Targets: []target{},
	}
	// How busy the machine is otherwise; only Linux says so in a file.
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		if f := strings.Fields(string(b)); len(f) >= 3 {
			r.Load = strings.Join(f[:3], " ")
		}
	}
	return r
}

func (r *report) add(name string, fs map[string]figures) {
	r.Figures[name] = fs
	r.order = append(r.order, name)
}

func (r *report) target(t target) {
	if t.missing {
		return // nothing to compare with
	}
	if t.FigureUnit == "" {
		t.FigureUnit = t.Unit
	}
	t.Reached = t.Got <= t.Want
	if t.Atleast {
		t.Reached = t.Got >= t.Want
	}
	r.Targets = append(r.Targets, t)
}

// bestPeer is the peer with the better figure.
func bestPeer[C contestant](cs []C, fs map[string]figures, figure string, better func(a, b float64) bool) peer {
	var best peer
	for _, c := range cs {
		v, ok := fs[c.called()][figure]
		if c.isPeer() && ok && (best.name == "" || better(v, best.value)) {
			best = peer{c.called(), v}
		}
	}
	return best
}

// cloudTarget completes a target with what others reach in the figure that it's about.
func cloudTarget[C contestant](cs []C, fs map[string]figures, floor, figure string, t target) target {
	t.Figure, t.Floor = fs[oursName][figure], fs[floor][figure]
	t.Peer = bestPeer(cs, fs, figure, func(a, b float64) bool {
		if t.Atleast {
			return a > b
		}
		return a < b
	})
	return t
}

// ratio is a by b, and 0 where there's no b.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s, %d CPUs, load %s; medians of %d interleaved rounds; window of %d messages\n", r.Go, r.CPUs, r.Load, r.Rounds, r.Window)
	if r.SQS != "" {
		fmt.Fprintf(w, "SQS: %s; the floor is the raw loop\n", r.SQS)
	}
	if r.PubSub != "" {
		fmt.Fprintf(w, "Pub/Sub: %s; the floor is the generated client used by hand\n", r.PubSub)
	}
	for _, name := range r.order {
		r.table(w, name)
	}
	if len(r.Targets) == 0 {
		return
	}
	fmt.Fprintln(w, "\ntargets")
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "  \tmeasured\tof the floor\tof the better peer\ttarget\treached")
	for _, t := range r.Targets {
		sign, reached := "<=", "no"
		if t.Atleast {
			sign = ">="
		}
		if t.Reached {
			reached = "yes"
		}
		fmt.Fprintf(tw, "  %s\t%s\t%s\t%s\t%s %s\t%s\n", t.Name, unit(t.Figure, t.FigureUnit),
			times(t.Figure, t.Floor, ""), times(t.Figure, t.Peer.value, t.Peer.name), sign, unit(t.Want, t.Unit), reached)
	}
	tw.Flush() //nolint:errcheck // a terminal
}

func (r *report) table(w io.Writer, name string) {
	fs := r.Figures[name]
	var rows, columns []string
	for row, f := range fs {
		rows = append(rows, row)
		for c := range f {
			if !slices.Contains(columns, c) {
				columns = append(columns, c)
			}
		}
	}
	slices.Sort(columns)
	slices.SortFunc(rows, func(a, b string) int {
		if x, y := place(a), place(b); x != y {
			return x - y
		}
		return strings.Compare(a, b)
	})
	fmt.Fprintf(w, "\n%s\n", name)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, " \t%s\t\n", strings.Join(columns, "\t"))
	for _, row := range rows {
		fmt.Fprintf(tw, "  %s\t", row)
		for _, c := range columns {
			fmt.Fprintf(tw, "%s\t", plain(fs[row][c]))
		}
		fmt.Fprintln(tw)
	}
	tw.Flush() //nolint:errcheck // a terminal
}

// place is that of a system in the lists.
func place(name string) int {
	for i, c := range contenders {
		if c.name == name {
			return i
		}
	}
	for i, c := range sqsContenders {
		if c.name == name {
			return i - len(sqsContenders) // before those that are in both
		}
	}
	return len(contenders)
}

func unit(v float64, u string) string {
	if u == "" || u == "x" {
		return plain(v) + u
	}
	return plain(v) + " " + u
}

func times(v, of float64, name string) string {
	if of == 0 {
		return "-"
	}
	s := fmt.Sprintf("%.2fx", v/of)
	if name != "" {
		s += " " + name
	}
	return s
}

// plain is a number with three digits or so.
func plain(v float64) string {
	switch a := math.Abs(v); {
	case a == 0 || a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
