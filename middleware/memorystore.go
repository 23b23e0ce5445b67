package middleware

import (
	"cmp"
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/anyqueue/anyqueue/queue"
)

// DefaultMemoryStoreSize is how many keys a MemoryStore holds when nothing else
// is said.
const DefaultMemoryStoreSize = 100_000

// A MemoryStore is an IdempotencyStore in memory: for tests, and for a queue with
// one consuming process that may handle repeats again after a restart. Its
// methods may be called concurrently. The zero value is one of the default size.
type MemoryStore struct {
	max int

	mu   sync.Mutex
	keys map[string]*list.Element // of *memoryMark
	// Both from the oldest mark to the newest, which is nearly the order in
	// which they run out.
	done, progress *list.List
}

type memoryMark struct {
	key   string
	token string // of who has it in progress
	done  bool
	until time.Time
}

// NewMemoryStore returns an empty store that holds at most size keys; 0 or less:
// DefaultMemoryStoreSize. When it's full the oldest success is forgotten, so
// that its repeat would be handled again; with as many handlers running it fails
// with queue.ErrFull.
func NewMemoryStore(size int) *MemoryStore {
	return &MemoryStore{max: max(size, 0)}
}

func (s *MemoryStore) lock() {
	s.mu.Lock()
	if s.keys == nil {
		s.max = cmp.Or(s.max, DefaultMemoryStoreSize)
		s.keys, s.done, s.progress = map[string]*list.Element{}, list.New(), list.New()
	}
}

// Len tells how many keys are held.
func (s *MemoryStore) Len() int {
	s.lock()
	defer s.mu.Unlock()
	s.expire(s.done, time.Now(), s.done.Len())
	s.expire(s.progress, time.Now(), s.progress.Len())
	return len(s.keys)
}

// Begin implements IdempotencyStore.
func (s *MemoryStore) Begin(_ context.Context, key, token string, ttl time.Duration) (Mark, error) {
	now := time.Now()
	s.lock()
	defer s.mu.Unlock()
	if e, ok := s.keys[key]; ok {
		switch m := mark(e); {
		case !now.Before(m.until):
			s.remove(e)
		case m.done:
			return MarkDone, nil
		case m.token != token:
			return MarkInProgress, nil
		default:
			m.until = now.Add(ttl)
			s.progress.MoveToBack(e)
			return MarkStarted, nil
		}
	}
	if err := s.makeRoom(now); err != nil {
		return 0, err
	}
	s.keys[key] = s.progress.PushBack(&memoryMark{key: key, token: token, until: now.Add(ttl)})
	return MarkStarted, nil
}

// Done implements IdempotencyStore.
func (s *MemoryStore) Done(_ context.Context, key string, ttl time.Duration) error {
	now := time.Now()
	s.lock()
	defer s.mu.Unlock()
	if e, ok := s.keys[key]; ok {
		s.remove(e)
	} else if err := s.makeRoom(now); err != nil {
		return err
	}
	s.keys[key] = s.done.PushBack(&memoryMark{key: key, done: true, until: now.Add(ttl)})
	return nil
}

// Release implements IdempotencyStore.
func (s *MemoryStore) Release(_ context.Context, key, token string) error {
	s.lock()
	defer s.mu.Unlock()
	if e, ok := s.keys[key]; ok && !mark(e).done && mark(e).token == token {
		s.remove(e)
	}
	return nil
}

// makeRoom makes room for one more key. What has run out is removed a little
// each time, so that no call takes long.
func (s *MemoryStore) makeRoom(now time.Time) error {
	s.expire(s.done, now, 2)
	s.expire(s.progress, now, 2)
	if len(s.keys) < s.max {
		return nil
	}
	oldest := s.done.Front()
	if oldest == nil {
		return queue.ErrFull
	}
	s.remove(oldest)
	return nil
}

func (s *MemoryStore) expire(l *list.List, now time.Time, atMost int) {
	for e := l.Front(); e != nil && atMost > 0; atMost-- {
		next := e.Next()
		if now.Before(mark(e).until) {
			return
		}
		s.remove(e)
		e = next
	}
}

func (s *MemoryStore) remove(e *list.Element) {
	m := mark(e)
	delete(s.keys, m.key)
	if m.done {
		s.done.Remove(e)
	} else {
		s.progress.Remove(e)
	}
}

// mark is what an element holds: the lists have nothing else.
func mark(e *list.Element) *memoryMark {
	m, _ := e.Value.(*memoryMark)
	return m
}

var _ IdempotencyStore = (*MemoryStore)(nil)
