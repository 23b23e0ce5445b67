package remote

import "sync"

// width is how many requests of one call are under way at a time.
const width = 8

// Parallel calls do for 0 to n-1, some of them at a time, and waits for all.
func Parallel(n int, do func(i int)) {
	if n == 1 {
		do(0)
		return
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, width)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			do(i)
		})
	}
	wg.Wait()
}
