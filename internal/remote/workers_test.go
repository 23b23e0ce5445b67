package remote_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/anyqueue/anyqueue/internal/remote"
)

func TestWorkersRunEverything(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var w remote.Workers
		var done atomic.Int64
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Add(1)
			w.Go(func() {
				time.Sleep(time.Duration(i%7) * 250 * time.Millisecond)
				done.Add(1)
				wg.Done()
			})
			time.Sleep(time.Duration(i%5) * 300 * time.Millisecond) // around the time after which they go
		}
		wg.Wait()
		assert.EqualValues(t, 200, done.Load())
		w.Close()
		w.Go(func() { done.Add(1) })
		synctest.Wait()
		assert.EqualValues(t, 201, done.Load())
	}) // which fails unless all goroutines have ended
}
