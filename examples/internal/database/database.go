// Package database stands in for the database that an application has: a
// key-value store with two statements, each atomic. It lives in one process and
// is served to the others over HTTP, so that what an example remembers is known
// to all of its processes and survives each of them but that one.
package database

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// A Database is what an example needs of its database. "" stands for no value.
// It may be used concurrently.
type Database interface {
	// Swap replaces the value of a key by next, if it's still old, in one step, and
	// returns the value that was there. The new value lives for ttl; 0: for ever.
	Swap(ctx context.Context, key, old, next string, ttl time.Duration) (was string, err error)
	// Put sets the value of a key, whatever was there.
	Put(ctx context.Context, key, value string, ttl time.Duration) error
}

// Memory is a Database in this process. Handler serves it to others.
type Memory struct {
	observe func(key, value string)

	mu   sync.Mutex
	rows map[string]row
}

type row struct {
	value   string
	expires time.Time // zero: never
}

// NewMemory returns an empty database. Observe, if not nil, is called with each
// change, one at a time; it must not block.
func NewMemory(observe func(key, value string)) *Memory {
	return &Memory{observe: observe, rows: map[string]row{}}
}

// Swap implements Database.
func (db *Memory) Swap(ctx context.Context, key, old, next string, ttl time.Duration) (was string, err error) {
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

// Put implements Database.
func (db *Memory) Put(ctx context.Context, key, value string, ttl time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.put(key, value, ttl)
	return nil
}

func (db *Memory) put(key, value string, ttl time.Duration) {
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

func (db *Memory) get(key string) string {
	r, ok := db.rows[key]
	if ok && !r.expires.IsZero() && time.Now().After(r.expires) {
		delete(db.rows, key)
		return ""
	}
	return r.value
}

// change is what Handler takes.
type change struct {
	Key   string        `json:"key"`
	Old   string        `json:"old,omitempty"`
	New   string        `json:"new,omitempty"`
	TTL   time.Duration `json:"ttl,omitempty"`   // in nanoseconds
	Force bool          `json:"force,omitempty"` // whatever Old is
}

// Handler serves Swap and, with Force, Put: POST /swap with a change, answered
// by {"was": ...}.
func (db *Memory) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /swap", func(w http.ResponseWriter, r *http.Request) {
		var c change
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil || c.Key == "" {
			answer(w, http.StatusBadRequest, map[string]string{"message": "a change needs a key"})
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
			answer(w, http.StatusServiceUnavailable, map[string]string{"message": err.Error()})
			return
		}
		answer(w, http.StatusOK, map[string]string{"was": was})
	})
	return mux
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a caller that has gone doesn't matter
}
