package plan

import (
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sagbench/configs"
	"sagbench/experiments/human"
	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/families"
)

// checkSizes is an error for each network that the machine's memory cannot hold, as
// its flags describe it. Nothing is allocated for it. What is compared is the least
// that a network takes: its parameters as float32 and, for a batch of the row, its
// largest value.
func (e *Experiment) checkSizes(memory float64) error {
	var faults []error
	e.sizes = map[string]models.Size{}
	for _, r := range e.Rows {
		for _, n := range r.Networks() {
			size, err := e.sizeOf(&n)
			if err == nil {
				err = n.fits(size, min(r.Batch, r.Samples), memory)
			}
			faults = append(faults, err)
		}
	}
	return configs.Join(faults...)
}

// sizeOf is the size of a network, the zero Size where its family does not tell. It
// is counted once for all rows.
func (e *Experiment) sizeOf(n *NetworkRef) (models.Size, error) {
	key, err := n.Key(n.Checkpoint.Path, models.Options{})
	if err != nil {
		return models.Size{}, err
	}
	size, known := e.sizes[key]
	if known {
		return size, nil
	}
	switch f := n.Flags.(type) {
	case models.Measured:
		size, err = f.Measure(n.Checkpoint.Path, 0, 0)
	case models.WithParameters:
		size, err = f.Size()
	}
	if err != nil {
		return size, n.Errorf("%w", err)
	}
	e.sizes[key] = size
	return size, nil
}

// fits is an error unless a network of the size, with a batch of images, fits into
// the memory.
func (n *NetworkRef) fits(size models.Size, batch int, memory float64) error {
	weights, values := 4*size.Parameters, float64(batch)*size.Activation
	if size.Alone > values {
		values, batch = size.Alone, 1
	}
	if weights+values <= memory {
		return nil
	}
	return n.Errorf("the flags, or the configuration of the checkpoint, describe a network of %s parameters, %s as float32, of which one value takes %s for a batch of %d images; this machine has %s of memory: look at the flags that set width, depth and image size, and at batch",
		human.Count(whole(size.Parameters)), human.Bytes(int64(whole(weights))), human.Bytes(int64(whole(values))), batch, human.Bytes(int64(whole(memory))))
}

// checkFiles is an error for each checkpoint that is too small for the network that
// its flags, or the configurations beside it, describe. A byte a parameter is less than
// any file has, and one that is compressed may be unpacked to four times its size and
// 16 MiB.
func (e *Experiment) checkFiles() error {
	var faults []error
	for _, r := range e.Rows {
		for _, n := range r.Networks() {
			size, err := e.sizeOf(&n)
			if err != nil {
				return err
			}
			bytes, err := n.bytes()
			if err == nil && size.Parameters > 5*float64(bytes)+16<<20 {
				faults = append(faults, n.Errorf("the flags, or the configuration of the checkpoint, describe a network of %s parameters, which %s with its %s cannot hold; %s",
					human.Count(whole(size.Parameters)), n.Checkpoint.Path, human.Bytes(bytes), n.trained()))
			}
		}
	}
	return configs.Join(faults...)
}

// trained tells how to find out what the network's checkpoint is of: its family, where
// its keys speak for others than the block's alone.
func (n *NetworkRef) trained() string {
	const inspect = "sagbench inspect tells the flags that it was trained with"
	f, err := checkpoint.OpenSet(n.Checkpoint.Path, n.Weights)
	if err != nil {
		return inspect
	}
	defer f.Close()
	var others []string
	for _, g := range families.Guess(f) {
		if g.Family == n.Family {
			return inspect
		}
		others = append(others, "family: "+g.Family)
	}
	if others == nil {
		return inspect
	}
	return "its keys speak for " + strings.Join(others, " or ") + "; " + inspect
}

// bytes are those of the files that a network is made of.
func (n *NetworkRef) bytes() (sum int64, err error) {
	files, err := models.Files(n.Flags.(models.Family), n.Checkpoint.Path)
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			return 0, err
		}
		sum += info.Size()
	}
	return sum, err
}

// whole is a size for people; one beyond all integers is the largest.
func whole(v float64) int { return int(min(v, math.MaxInt64/2)) }

// MachineMemory is the memory that this process can have, in bytes: the machine's,
// or the limit of its control group.
func MachineMemory() float64 {
	most := math.Inf(1)
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) == nil {
		most = float64(s.Totalram) * float64(s.Unit)
	}
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if text, err := os.ReadFile(path); err == nil {
			if limit, err := strconv.ParseFloat(strings.TrimSpace(string(text)), 64); err == nil {
				most = min(most, limit)
			}
		}
	}
	return most
}
