// Package devices runs the program once for each device of this machine: a command
// line goes in, processes that share its work come out, started again when they die,
// with one progress over all of them. It knows nothing of the work.
package devices

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"sagbench/experiments/human"
	"sagbench/experiments/work"
	"sagbench/models/ort"
)

// Options say what is run where.
type Options struct {
	Program  string
	Args     []string // of a process, without the flags that this package adds
	Flags    []string // of each process
	Devices  []string // a process for each, such as cuda:0, cuda:1, or cpu, cpu
	Part     work.Part
	Threads  int // of the whole machine; 0 = all cores
	Progress *human.Progress
	Stdout   io.Writer // gets what the first process prints that is done
	// Leader: the process of the first device alone finishes the work; what it prints and
	// how it ends is what all do. The others help it until it ends.
	Leader bool
	// Watch, if it is there, shows how far the work is; it is called now and then.
	Watch func(*human.Progress)
}

// restarts is how often a process is started again, and restartAfter how long after it
// has died the first time.
const restarts = 3

var restartAfter = time.Second

// grace is how long a process has to end when it is asked to.
const grace = 20 * time.Second

// statusMisuse is the exit status of what will not go better the next time;
// statusAgain that of what may.
const statusMisuse, statusAgain = 2, 75

// Run runs the program on each device until the work is done. The work is done when one
// process says so, and the others find out; or when the leader does, where there is one. One that dies is started again; one that ends
// with status 2 ends all. Cancelling ctx ends them as SIGTERM does.
func Run(ctx context.Context, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &runner{Options: o, events: make(chan func(), 16), said: map[string]bool{}}
	var all sync.WaitGroup
	for i := range o.Devices {
		all.Go(func() {
			err := r.keep(ctx, i)
			r.events <- func() {
				if r.ended = append(r.ended, err); fatal(err) || o.Leader && i == 0 {
					cancel()
				}
				if o.Leader && i == 0 {
					r.led = err
				}
			}
		})
	}
	go func() {
		all.Wait()
		close(r.events)
	}()
	r.show()
	return r.result(ctx)
}

// A runner's fields are changed by the goroutine of show alone, which calls events.
type runner struct {
	Options
	events chan func()
	said   map[string]bool // lines
	ended  []error         // of the devices
	stdout string          // of the first one that was done, or of the leader
	led    error           // how the leader ended
}

// show does what events ask for, and shows the progress, until all have ended.
func (r *runner) show() {
	wait := time.Second
	for {
		select {
		case event, open := <-r.events:
			if !open {
				r.Progress.End()
				return
			}
			event()
		case <-time.After(wait):
			if r.Watch != nil {
				began := time.Now()
				r.Watch(r.Progress)
				wait = max(time.Second, 20*time.Since(began)) // a slow file system is asked less often
			}
		}
	}
}

// fatal tells of an error that no device will be without.
func fatal(err error) bool { return errors.As(err, new(human.Misuse)) }

// result is nil where a process has finished the work, or else an error of those that
// could not.
func (r *runner) result(ctx context.Context) error {
	if r.Leader {
		_, err := io.WriteString(r.Stdout, r.stdout)
		return errors.Join(r.led, err)
	}
	if slices.Contains(r.ended, nil) {
		_, err := io.WriteString(r.Stdout, r.stdout)
		return err
	}
	if i := slices.IndexFunc(r.ended, fatal); i >= 0 {
		return r.ended[i]
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(r.ended...)
}

// keep runs the program on a device, and starts it again when it dies.
func (r *runner) keep(ctx context.Context, i int) error {
	for attempt := 0; ; attempt++ {
		err := r.once(ctx, i)
		if err == nil || ctx.Err() != nil || fatal(err) || r.Leader && !errors.As(err, new(*exec.ExitError)) {
			return err // a leader that ends by itself has said why
		}
		if attempt == restarts {
			err = fmt.Errorf("%s: was started %d times: %w", r.Devices[i], attempt+1, err)
			r.note(err.Error())
			return err
		}
		r.note(fmt.Sprintf("%s: %v; it is started again", r.Devices[i], err))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(restartAfter << attempt):
		}
	}
}

func (r *runner) note(line string) { r.events <- func() { r.Progress.Note(line) } }

// once runs the program on a device to its end.
func (r *runner) once(ctx context.Context, i int) error {
	c := exec.Command(r.Program, withFlags(r.Args, r.flags(i))...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us, who pass it on
	var stdout bytes.Buffer
	c.Stdout = &stdout
	stderr, err := c.StderrPipe()
	if err != nil {
		return err
	}
	alive, err := c.StdinPipe() // its end tells the process that we are gone
	if err != nil {
		return err
	}
	defer alive.Close()
	if err := c.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		select {
		case <-ended:
		case <-ctx.Done():
			c.Process.Signal(syscall.SIGTERM)
			select {
			case <-ended:
			case <-time.After(grace):
				c.Process.Kill()
			}
		}
	}()
	last := r.forward(stderr)
	err = c.Wait()
	close(ended)
	return r.outcome(i, c.ProcessState, err, stdout.String(), last)
}

// flags are those of the process for device i.
func (r *runner) flags(i int) []string {
	part := work.Part{I: r.Part.I*len(r.Devices) + i, N: max(1, r.Part.N) * len(r.Devices)}
	f := []string{"--devices=", "--child", "--device=" + r.Devices[i], "--part=" + part.String()}
	if cpus := count(r.Devices, "cpu"); r.Devices[i] == "cpu" && cpus > 1 {
		threads := r.Threads
		if threads == 0 {
			threads = runtime.NumCPU()
		}
		f = append(f, "--threads="+strconv.Itoa(max(1, threads/cpus)))
	}
	return append(f, r.Flags...)
}

func count(all []string, one string) (n int) {
	for _, a := range all {
		if a == one {
			n++
		}
	}
	return n
}

// withFlags are arguments with further flags, which win over those that are there.
func withFlags(args, flags []string) []string {
	at := slices.Index(args, "--")
	if at < 0 {
		at = len(args)
	}
	return slices.Concat(args[:at], flags, args[at:])
}

// forward shows the lines that a process writes about itself, each once whoever writes
// it. It returns the message that the process ended with, which is not shown.
func (r *runner) forward(from io.Reader) (last string) {
	const prefix = "sagbench: "
	var message strings.Builder
	ending := false
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if rest, begins := strings.CutPrefix(line, prefix); begins || ending {
			ending = true
			message.WriteString(rest + "\n")
			continue
		}
		r.events <- func() {
			if !r.said[line] {
				r.said[line] = true
				r.Progress.Note(line)
			}
		}
	}
	io.Copy(io.Discard, from) // after a line that is too long
	return strings.TrimSpace(message.String())
}

// outcome is what the end of a process means.
func (r *runner) outcome(i int, state *os.ProcessState, err error, stdout, message string) error {
	if err == nil || r.Leader && i == 0 {
		r.events <- func() { r.stdout = cmp.Or(r.stdout, stdout) }
	}
	switch status := state.ExitCode(); {
	case err == nil:
		return nil
	case message == "":
		return fmt.Errorf("the process ended with %w", err)
	case status == statusMisuse:
		return human.Misusef("%s: %s", r.Devices[i], message)
	case status == statusAgain:
		return human.Again{Err: errors.New(message)}
	}
	return errors.New(message)
}

// maxDevices bounds the processes against a mistyped list.
const maxDevices = 64

// Parse reads a list of devices, "cuda:0,cuda:1", or "all" for the GPUs of the machine.
func Parse(text string) ([]string, error) {
	if text == "all" {
		var all []string
		for i := range ort.GPUs() {
			all = append(all, fmt.Sprintf("cuda:%d", i))
		}
		if len(all) == 0 {
			return nil, human.Misusef("--devices all: this machine has no NVIDIA GPU that can be seen; name the devices, such as cpu,cpu")
		}
		return all, nil
	}
	all := strings.Split(text, ",")
	if slices.Contains(all, "") || len(all) > maxDevices {
		return nil, human.Misusef("--devices is %q, expected all, or up to %d names with commas between them: cuda:0,cuda:1", text, maxDevices)
	}
	return all, nil
}

// EndWithParent ends this process, as SIGTERM does, when the process that started it
// has ended: stdin is the pipe from it.
func EndWithParent(stdin io.Reader) {
	io.Copy(io.Discard, stdin)
	syscall.Kill(os.Getpid(), syscall.SIGTERM)
}
