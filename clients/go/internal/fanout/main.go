// Command fanout is the benchmark's reader of many streams at once (bench/fan_out.py): one that costs
// so little that it is not what fills the machine. It is here because it needs the stubs.
//
//	fanout service ADDRESS STREAMS COUNT MS    reads each stream through gRPC, over one connection
//	fanout pipes BINARY STREAMS COUNT MS       starts the processes itself and reads their pipes
//
// It says `ready` when every stream has had a first turn, begins a turn on each whenever a line is said
// to it, and says `done` when all have ended. At the end of its input it tells each text that it received:
// the time of that, the time at which the service saw it (0 on pipes), both in nanoseconds of the time of
// day, and the text.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"
)

// Streams that are set up at once: a pool queues only so many callers of one tenant.
const together = 8

type arrival struct {
	received, seen int64
	text           string
}

// A stream runs one turn at a time.
type stream interface {
	turn(request string) ([]arrival, error)
}

func main() {
	// On one core no goroutine is handed from one to another, which costs more than the reading.
	runtime.GOMAXPROCS(1)
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "fanout:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) != 5 {
		return fmt.Errorf("five arguments are needed, not %d", len(arguments))
	}
	streams, err := strconv.Atoi(arguments[2])
	if err != nil {
		return err
	}
	open, closeAll, err := opener(arguments[0], arguments[1])
	if err != nil {
		return err
	}
	defer closeAll()
	opened, err := inBatches(streams, func() (stream, error) {
		made, err := open()
		if err == nil {
			_, err = made.turn("!deltas 1")
		}
		return made, err
	})
	if err != nil {
		return err
	}
	said := bufio.NewScanner(os.Stdin)
	fmt.Println("ready")
	var all [][]arrival
	for said.Scan() {
		taken, err := runTurns(opened, fmt.Sprintf("!deltas %s %s", arguments[3], arguments[4]))
		if err != nil {
			return err
		}
		all = append(all, taken...)
		fmt.Println("done")
	}
	if err := said.Err(); err != nil {
		return err
	}
	return tell(all)
}

func opener(kind, where string) (func() (stream, error), func(), error) {
	switch kind {
	case "service":
		return overGRPC(where)
	case "pipes":
		return overPipes(where)
	}
	return nil, nil, fmt.Errorf("there is no kind %q", kind)
}

func inBatches(count int, open func() (stream, error)) ([]stream, error) {
	opened, failures := make([]stream, count), make([]error, count)
	for first := 0; first < count; first += together {
		var batch sync.WaitGroup
		for index := first; index < min(first+together, count); index++ {
			batch.Go(func() { opened[index], failures[index] = open() })
		}
		batch.Wait()
		for _, err := range failures {
			if err != nil {
				return nil, err
			}
		}
	}
	return opened, nil
}

// Streams begin over one second, so that they write neither together nor in step.
func runTurns(opened []stream, request string) ([][]arrival, error) {
	taken, failures := make([][]arrival, len(opened)), make([]error, len(opened))
	var all sync.WaitGroup
	for index, each := range opened {
		all.Go(func() {
			time.Sleep(time.Second*time.Duration(index)/time.Duration(len(opened)) +
				time.Millisecond*time.Duration(index%20))
			taken[index], failures[index] = each.turn(request)
		})
	}
	all.Wait()
	for _, err := range failures {
		if err != nil {
			return nil, err
		}
	}
	return taken, nil
}

func tell(taken [][]arrival) error {
	out := bufio.NewWriter(os.Stdout)
	for _, turn := range taken {
		for _, each := range turn {
			fmt.Fprintln(out, each.received, each.seen, each.text)
		}
	}
	return out.Flush()
}
