// A C archive of Go: goroutines, channels, the garbage collector, and a fault that becomes a panic.
package main

import "C"

import (
	"fmt"
	"os"
	"runtime"
	"sort"
	"sync"
	"time"
)

//export Squares
func Squares(count C.int) C.int {
	var group sync.WaitGroup
	results := make(chan int, 10)
	for number := 0; number < int(count); number++ {
		group.Add(1)
		go func(number int) {
			defer group.Done()
			time.Sleep(time.Millisecond)
			results <- number * number
		}(number)
	}
	go func() { group.Wait(); close(results) }()
	var all []int
	for result := range results {
		all = append(all, result)
	}
	sort.Ints(all)
	runtime.GC()
	fmt.Println(all, os.Args[1:])
	func() {
		defer func() { fmt.Println("recovered:", recover()) }()
		var nothing *int
		fmt.Println(*nothing)
	}()
	return C.int(len(all))
}

func main() {}
