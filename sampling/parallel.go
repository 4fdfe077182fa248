package sampling

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// EachImage calls f(0) … f(n-1), each once, on all cores. Calls for different
// images run at the same time, in no order; f(i) may write to what belongs to
// image i alone, which makes the result independent of the number of cores.
func EachImage(n int, f func(i int)) {
	workers := min(n, runtime.GOMAXPROCS(0))
	if workers <= 1 {
		for i := range n {
			f(i)
		}
		return
	}
	var next atomic.Int64
	work := func() {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			f(i)
		}
	}
	var wg sync.WaitGroup
	for range workers - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
}
