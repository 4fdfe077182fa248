package work

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// An id names a worker: its host, for people; the machine and the process, so that
// another one on the machine knows whether it is alive; and a number, as a process
// may be a worker several times.
//
//	node17-3f2a9c41-12345-8812345-1
var idForm = regexp.MustCompile(`^(.+)-([0-9a-f]{8}|x)-(\d+)-(\d+)-(\d+)$`)

// sessions counts the workers of this process.
var sessions atomic.Int64

// unsafeInName matches what a host's name does not bring into a file's.
var unsafeInName = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

// newID is the id of a new worker of this process.
func newID() string {
	host := unsafeInName.ReplaceAllString(hostName(), "")
	if len(host) > 60 {
		host = host[:60]
	}
	start, _, err := startOf(os.Getpid())
	if err != nil {
		start = fmt.Sprint(time.Now().UnixNano())
	}
	return fmt.Sprintf("%s-%s-%d-%s-%d", cmp.Or(strings.Trim(host, "-."), "host"), machine(), os.Getpid(), start, sessions.Add(1))
}

func hostName() string {
	host, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return host
}

// machine tells from all others the machine since it was started, and on it the set
// of processes that see each other; "x" where the system does not tell.
var machine = sync.OnceValue(func() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	space, err2 := os.Readlink("/proc/self/ns/pid")
	if err != nil || err2 != nil {
		return "x"
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(string(boot)+space)))[:8]
})

// startOf is when a process was started, in the system's ticks, and whether it has
// ended and is only waited for; an error where the system does not tell.
func startOf(pid int) (start string, zombie bool, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", false, err
	}
	// The second field, the name in parentheses, may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return "", false, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return fields[19], fields[0] == "Z" || fields[0] == "X", nil
}

// ended reports whether a worker is known to have ended: it ran on this machine,
// where there is no such process any more.
func ended(id string) bool {
	m := idForm.FindStringSubmatch(id)
	if m == nil || m[2] == "x" || m[2] != machine() {
		return false
	}
	pid, _ := strconv.Atoi(m[3])
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	start, zombie, err := startOf(pid) // which the system may hide
	return err == nil && (zombie || start != m[4])
}
