package parties

import (
	"encoding/json"
	"net/http"
	"strconv"
	"sync"

	"github.com/anyqueue/anyqueue/examples/internal/thirdparty"
)

// Account and list that the fake customer service knows.
const (
	Account = "acme"
	List    = "newsletter"
)

const pageSize = 1000

// A reservation holds credit for a blast. The same id reserves once, whatever
// it's asked for how often.
type reservation struct {
	ID      string `json:"id"`
	Credits int    `json:"credits"`
}

// billing is the account side of the customer service.
type billing struct {
	mu       sync.Mutex
	credit   int
	reserved map[string]reservation
}

func (b *billing) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /accounts/{account}", b.account)
	mux.HandleFunc("POST /accounts/{account}/reservations", b.reserve)
	return mux
}

func (b *billing) account(w http.ResponseWriter, r *http.Request) {
	if r.PathValue("account") != Account {
		refuse(w, http.StatusNotFound, "no such account")
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	answer(w, http.StatusOK, map[string]any{"id": Account, "active": true, "credit": b.credit})
}

func (b *billing) reserve(w http.ResponseWriter, r *http.Request) {
	var want reservation
	if err := json.NewDecoder(r.Body).Decode(&want); err != nil || want.ID == "" || want.Credits < 1 {
		refuse(w, http.StatusBadRequest, "id and credits are needed")
		return
	}
	if r.PathValue("account") != Account {
		refuse(w, http.StatusNotFound, "no such account")
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if have, ok := b.reserved[want.ID]; ok {
		answer(w, http.StatusOK, have)
		return
	}
	if want.Credits > b.credit {
		refuse(w, http.StatusPaymentRequired, "not enough credit")
		return
	}
	thirdparty.Annotate(w, want)
	b.credit -= want.Credits
	b.reserved[want.ID] = want
	answer(w, http.StatusCreated, want)
}

// crm is the customer side: lists and customers.
type crm struct{ in *Input }

func (c crm) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /accounts/{account}/lists/{list}", c.list)
	mux.HandleFunc("GET /customers/{id}", c.customer)
	return mux
}

func (c crm) list(w http.ResponseWriter, r *http.Request) {
	if r.PathValue("account") != Account || r.PathValue("list") != List {
		refuse(w, http.StatusNotFound, "no such list")
		return
	}
	page, err := strconv.Atoi(r.URL.Query().Get("page"))
	if err != nil || page < 1 {
		page = 1
	}
	from := min((page-1)*pageSize, len(c.in.List))
	to := min(from+pageSize, len(c.in.List))
	next := 0
	if to < len(c.in.List) {
		next = page + 1
	}
	answer(w, http.StatusOK, map[string]any{"customers": c.in.List[from:to], "next": next})
}

func (c crm) customer(w http.ResponseWriter, r *http.Request) {
	customer := c.in.Customers[r.PathValue("id")]
	if customer == nil {
		refuse(w, http.StatusNotFound, "no such customer")
		return
	}
	answer(w, http.StatusOK, customer)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a caller that has gone doesn't matter to a fake
}

func refuse(w http.ResponseWriter, status int, message string) {
	answer(w, status, map[string]string{"message": message})
}
