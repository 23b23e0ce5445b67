package parties

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReadCSV(t *testing.T) {
	t.Parallel()
	in, err := ReadCSV(strings.NewReader("\ufeffID, Email ,name,opted_out,city\n" +
		"1,ada@example.com,Ada,,London\n" +
		" 2 ,\"bo@example.com\",\"Bo, Jr.\",true,\n" +
		"1,other@example.com,Eve,true,Paris\n" +
		"3,,No Mail,0,Rome\n"))
	require.NoError(t, err)
	assert.Equal(t, []string{"1", "2", "1", "3"}, in.List)
	assert.Equal(t, 3, in.Unique())
	assert.Equal(t, &Customer{ID: "1", Email: "ada@example.com", Name: "Ada", Fields: map[string]string{"city": "London"}}, in.Customers["1"], "the first row counts")
	assert.Equal(t, &Customer{ID: "2", Email: "bo@example.com", Name: "Bo, Jr.", OptedOut: true, Fields: map[string]string{"city": ""}}, in.Customers["2"])
	assert.False(t, in.Customers["3"].OptedOut)
}

func TestReadCSVSaysWhatIsWrongAndWhere(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ file, want string }{
		"empty file":      {"", "the file is empty"},
		"no customers":    {"id,email\n", "no customers"},
		"no header":       {"1,ada@example.com\n", `line 1: there is no column "id"`},
		"no email column": {"id,name\n1,Ada\n", `line 1: there is no column "email"`},
		"empty id":        {"id,email\n1,a@example.com\n,b@example.com\n", "line 3: the id is empty"},
		"bad flag":        {"id,email,opted_out\n1,a@example.com,maybe\n", `line 2: opted_out is "maybe"`},
		"missing field":   {"id,email\n1\n", "line 2: wrong number of fields"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := ReadCSV(strings.NewReader(tc.file))
			assert.ErrorContains(t, err, tc.want)
		})
	}
}

func TestGeneratedListHasEveryKindOfCustomer(t *testing.T) {
	t.Parallel()
	in := Generate(1000)
	assert.Len(t, in.List, 1000)
	assert.Equal(t, 980, in.Unique(), "one in fifty is a repeat")
	assert.Equal(t, in, Generate(1000), "the same each time")
	kinds := map[string]int{}
	for _, c := range in.Customers {
		switch {
		case c == nil:
			kinds["unknown"]++
		case c.OptedOut:
			kinds["opted out"]++
		case strings.Contains(c.Email, ".."):
			kinds["malformed"]++
		default:
			result, _ := resultOf(c.Email)
			kinds[result]++
		}
	}
	for _, kind := range []string{"unknown", "opted out", "malformed", "undeliverable", "risky", "deliverable"} {
		assert.Positive(t, kinds[kind], kind)
	}
}
