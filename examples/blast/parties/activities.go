package parties

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// activities is the activity service: PUT /activities/{id}, so that a repeat
// changes nothing.
type activities struct {
	takes time.Duration

	mu   sync.Mutex
	seen map[string]bool
	kind map[string]int // number of different activities by kind
}

func (a *activities) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /activities/{id}", a.put)
	return mux
}

func (a *activities) put(w http.ResponseWriter, r *http.Request) {
	var activity struct {
		Kind string `json:"kind"`
	}
	if err := json.NewDecoder(r.Body).Decode(&activity); err != nil || activity.Kind == "" {
		refuse(w, http.StatusBadRequest, "an activity needs a kind")
		return
	}
	select {
	case <-time.After(a.takes):
	case <-r.Context().Done():
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seen[r.PathValue("id")] {
		w.WriteHeader(http.StatusOK)
		return
	}
	a.seen[r.PathValue("id")] = true
	a.kind[activity.Kind]++
	w.WriteHeader(http.StatusCreated)
}

// count returns how many different activities of the kinds there are.
func (a *activities) count(kinds ...string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, k := range kinds {
		n += a.kind[k]
	}
	return n
}
