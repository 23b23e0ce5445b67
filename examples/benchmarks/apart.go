package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// roundArg makes this program measure one round of throughput of one system: see
// throughputApart.
const roundArg = "throughput-round"

// throughputApart measures a round in a process of its own. The heap that others
// leave behind, the goroutines that they had and the pace that the garbage
// collector has got used to would otherwise be part of what's measured.
func throughputApart(c contender, o options) (figures, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var out, errs bytes.Buffer
	cmd := exec.Command(program, roundArg, c.name, o.throughput.String(), strconv.Itoa(o.window))
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("a round apart: %w: %s", err, errs.String())
	}
	f := figures{}
	return f, json.Unmarshal(out.Bytes(), &f)
}

// oneRound is the other end of throughputApart. args follow roundArg.
func oneRound(args []string, out io.Writer) error {
	if len(args) != 3 {
		return fmt.Errorf("%s needs a system, a duration and a window", roundArg)
	}
	cs, err := choose(args[0])
	if err != nil {
		return err
	}
	o := options{}
	if o.throughput, err = time.ParseDuration(args[1]); err != nil {
		return err
	}
	if o.window, err = strconv.Atoi(args[2]); err != nil {
		return err
	}
	f, err := throughput(cs[0].open(), o)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(f)
}
