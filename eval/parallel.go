package eval

import (
	"runtime"
	"sync"
)

// parallel calls work on consecutive parts of [0,n), one a core, and waits.
// The parts only divide labour: no result may depend on where they end.
func parallel(n int, work func(from, to int)) {
	parts := min(runtime.GOMAXPROCS(0), n)
	if parts <= 1 {
		work(0, n)
		return
	}
	var wg sync.WaitGroup
	for p := range parts {
		wg.Go(func() { work(p*n/parts, (p+1)*n/parts) })
	}
	wg.Wait()
}
