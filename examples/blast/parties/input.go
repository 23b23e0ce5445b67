package parties

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// A Customer is what the customer service knows about somebody.
type Customer struct {
	ID       string            `json:"id"`
	Email    string            `json:"email"`
	Name     string            `json:"name"`
	OptedOut bool              `json:"opted_out"`
	Fields   map[string]string `json:"fields,omitempty"` // further columns of the file
}

// Input is the list that the blast goes to.
type Input struct {
	List      []string             // ids as they stand in the list, repeats included
	Customers map[string]*Customer // nil for an id that is on the list only
}

// Unique is the number of different ids on the list.
func (in *Input) Unique() int { return len(in.Customers) }

// ReadCSV reads a list with a header line. The columns id and email must be
// there; name and opted_out (true, false) may be; any others become Fields. Of
// rows with the same id the first one counts.
func ReadCSV(r io.Reader) (*Input, error) {
	buffered := bufio.NewReader(r)
	if bom, err := buffered.Peek(3); err == nil && string(bom) == "\ufeff" {
		_, _ = buffered.Discard(3) // can't fail: it was peeked
	}
	rows := csv.NewReader(buffered)
	header, err := rows.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("the file is empty")
	}
	if err != nil {
		return nil, err
	}
	for i := range header {
		header[i] = strings.ToLower(strings.TrimSpace(header[i]))
	}
	for _, need := range []string{"id", "email"} {
		if !slices.Contains(header, need) {
			return nil, fmt.Errorf("line 1: there is no column %q in the header", need)
		}
	}

	in := &Input{Customers: map[string]*Customer{}}
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		line, _ := rows.FieldPos(0)
		c, err := parseRow(header, row)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		in.add(c.ID, c)
	}
	if len(in.List) == 0 {
		return nil, errors.New("there are no customers in the file")
	}
	return in, nil
}

func parseRow(header, row []string) (*Customer, error) {
	c := &Customer{}
	for i, name := range header {
		value := strings.TrimSpace(row[i])
		switch name {
		case "id":
			c.ID = value
		case "email":
			c.Email = value
		case "name":
			c.Name = value
		case "opted_out":
			if value == "" {
				continue
			}
			out, err := strconv.ParseBool(value)
			if err != nil {
				return nil, fmt.Errorf("opted_out is %q, neither true nor false", value)
			}
			c.OptedOut = out
		default:
			if c.Fields == nil {
				c.Fields = map[string]string{}
			}
			c.Fields[name] = value
		}
	}
	if c.ID == "" {
		return nil, errors.New("the id is empty")
	}
	return c, nil
}

func (in *Input) add(id string, c *Customer) {
	in.List = append(in.List, id)
	if _, ok := in.Customers[id]; !ok {
		in.Customers[id] = c
	}
}

var firstNames = []string{"Ada", "Zoë", "Bjørn", "Chloé", "Łukasz", "O'Neill", "Mei", "Jean-Luc", "Tom & Ana", "Noor"}

// Generate makes a list of n entries, the same for each n. One in fifty repeats
// an earlier one; some customers have opted out or are unknown, and some
// addresses are no good, in ways that the fakes know by the address.
func Generate(n int) *Input {
	in := &Input{Customers: make(map[string]*Customer, n)}
	for i := range n {
		if i%50 == 49 {
			in.add(in.List[i-25], nil)
			continue
		}
		c := &Customer{ID: fmt.Sprintf("c%06d", i+1), Name: firstNames[i%len(firstNames)]}
		c.Email = fmt.Sprintf("customer.%d@example.com", i+1)
		c.OptedOut = i%33 == 5
		switch {
		case i%97 == 11: // was deleted since the list was made
			in.add(c.ID, nil)
			continue
		case i%53 == 7:
			c.Email = fmt.Sprintf("customer.%d+rejected-email@example.com", i+1)
		case i%61 == 9:
			c.Email = fmt.Sprintf("customer.%d+low-quality@example.com", i+1)
		case i%307 == 13: // the checker lets it pass; the mail API doesn't
			c.Email = fmt.Sprintf("customer..%d@example.com", i+1)
		}
		in.add(c.ID, c)
	}
	return in
}
