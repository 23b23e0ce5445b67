package parties

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// A Database is a small key-value store in memory: a stand-in for the
// application's own database. Values live for a time if asked. It may be used
// concurrently. Handler serves it to other processes.
type Database struct {
	observe func(key, value string)

	mu   sync.Mutex
	rows map[string]row
}

type row struct {
	value   string
	expires time.Time // zero: never
}

// NewDatabase returns an empty Database.
func NewDatabase() *Database { return &Database{rows: map[string]row{}} }

// Swap replaces the value of a key by next, if it's still old, in one step, and
// returns the value that was there. "" stands for no value. The new value lives
// for ttl; 0: for ever.
func (db *Database) Swap(ctx context.Context, key, old, next string, ttl time.Duration) (was string, err error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	was = db.get(key)
	if was == old {
		db.put(key, next, ttl)
	}
	return was, nil
}

// Put sets the value of a key, whatever was there.
func (db *Database) Put(ctx context.Context, key, value string, ttl time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.put(key, value, ttl)
	return nil
}

func (db *Database) put(key, value string, ttl time.Duration) {
	if value == "" {
		delete(db.rows, key)
	} else {
		r := row{value: value}
		if ttl > 0 {
			r.expires = time.Now().Add(ttl)
		}
		db.rows[key] = r
	}
	if db.observe != nil {
		db.observe(key, value)
	}
}

func (db *Database) get(key string) string {
	r, ok := db.rows[key]
	if ok && !r.expires.IsZero() && time.Now().After(r.expires) {
		delete(db.rows, key)
		return ""
	}
	return r.value
}

// Change is what Handler takes.
type Change struct {
	Key   string        `json:"key"`
	Old   string        `json:"old"`
	New   string        `json:"new"`
	TTL   time.Duration `json:"ttl"`   // in nanoseconds
	Force bool          `json:"force"` // whatever Old is
}

// Handler serves Swap and, with Force, Put: POST /swap with a Change, answered
// by {"was": ...}.
func (db *Database) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /swap", func(w http.ResponseWriter, r *http.Request) {
		var c Change
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil || c.Key == "" {
			refuse(w, http.StatusBadRequest, "a change needs a key")
			return
		}
		var was string
		var err error
		if c.Force {
			err = db.Put(r.Context(), c.Key, c.New, c.TTL)
		} else {
			was, err = db.Swap(r.Context(), c.Key, c.Old, c.New, c.TTL)
		}
		if err != nil {
			refuse(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		answer(w, http.StatusOK, map[string]string{"was": was})
	})
	return mux
}
