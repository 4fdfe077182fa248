package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sagbench/configs"
)

// A forecast is what an experiment still has to do.
type forecast struct {
	rows    []rowForecast
	folder  string // that will hold the results
	free    int64  // bytes on its disk; -1 = unknown
	trialed bool   // the rows have times
}

// A rowForecast is what one row still has to do.
type rowForecast struct {
	row     *row
	images  int           // still to draw
	passes  int           // of the network for an image, guidance included
	calls   int           // of the network still to make, a batch each
	others  []int         // passes of the guidances' own networks for an image
	perStep string        // passes and calls of a step
	bytes   int64         // still to write: samples and features
	time    time.Duration // of the network and of Inception; 0 without a trial
}

// forecast counts what is left to do. done tells how many of a row's images are
// there; nil means none.
func (e *experiment) forecast(results string, done func(*row) int) (*forecast, error) {
	f := &forecast{folder: filepath.Join(results, e.name)}
	var faults []error
	for _, r := range e.rows {
		p := rowForecast{row: r, images: r.Samples}
		if done != nil {
			p.images = max(0, r.Samples-done(r))
		}
		steps, others, err := r.loads()
		faults = append(faults, err)
		one := total(steps)
		p.passes, p.perStep = one.passes, r.perStep(steps, others)
		for _, o := range others {
			p.others = append(p.others, total(o).passes)
		}
		p.calls = (p.images + r.Batch - 1) / r.Batch * one.calls
		if p.images > 0 {
			p.bytes = int64(p.images)*r.imageBytes() + r.featureBytes()
		}
		f.rows = append(f.rows, p)
	}
	f.free = freeSpace(f.folder)
	return f, configs.Join(faults...)
}

// imageSide is the height and width that the model's flags name; 0 if they name none.
func (r *row) imageSide() int {
	if f, ok := r.model.Flags.(interface{ ImageSide() int }); ok {
		return f.ImageSide()
	}
	flags := struct {
		Size int `yaml:"image_size"`
	}{}
	b, err := flagsOf(r.model.Flags)
	if err != nil || b.Only("image_size").Decode(&flags) != nil {
		return 0
	}
	return flags.Size
}

// imageBytes is what an image takes on the disk in the end.
func (r *row) imageBytes() int64 {
	side := int64(r.imageSide())
	return 3 * side * side
}

// featureBytes is what the features of the row's images take: rows of pool
// features and two covariance matrices in float64.
func (r *row) featureBytes() int64 {
	sum := int64(0)
	for _, part := range r.shares {
		pool, spatial := part.flags.Features(part.path)
		if pool == 0 {
			pool = 2048 // of the official Inception, until the file tells
		}
		want := generatedParts(part.metrics)
		sum += 8 * int64(pool) * int64(pool)
		if want.pool {
			sum += 4 * int64(pool) * int64(r.Samples)
		}
		if want.spatial {
			sum += 8 * int64(spatial) * int64(spatial)
		}
	}
	return sum
}

// images is how many images are still to be drawn.
func (f *forecast) images() int {
	n := 0
	for _, p := range f.rows {
		n += p.images
	}
	return n
}

// write is the disk space that is needed at most: a row's samples are there
// twice while its shards are put into one file.
func (f *forecast) write() int64 {
	var sum, most int64
	for _, p := range f.rows {
		sum += p.bytes
		if p.images > 0 {
			most = max(most, int64(p.row.Samples)*p.row.imageBytes())
		}
	}
	return sum + most
}

// String is the summary for people.
func (f *forecast) String() string {
	passes, calls, others := 0, 0, 0
	var total time.Duration
	for _, p := range f.rows {
		passes, calls, total = passes+p.images*p.passes, calls+p.calls, total+p.time
		for _, n := range p.others {
			others += p.images * n
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "to do: %s images in %d rows: %s passes through the network, in %s calls\n", grouped(f.images()), len(f.rows), grouped(passes), grouped(calls))
	if others > 0 {
		fmt.Fprintf(&out, "       %s passes through the networks of guidances\n", grouped(others))
	}
	fmt.Fprintf(&out, "disk:  %s at most in %s", byteSize(f.write()), f.folder)
	if f.free >= 0 {
		fmt.Fprintf(&out, ", %s free", byteSize(f.free))
		if f.write() > f.free {
			out.WriteString(": NOT ENOUGH; free some space or choose another disk with --results")
		}
	}
	out.WriteString("\n")
	if f.trialed {
		fmt.Fprintf(&out, "time:  about %s, from a trial of two batches\n", round(total))
	}
	return out.String()
}

// grouped writes 1,562,500.
func grouped(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// byteSize writes 9.8 GB.
func byteSize(n int64) string {
	units := []string{"bytes", "kB", "MB", "GB", "TB"}
	v, i := float64(n), 0
	for v >= 1000 && i < len(units)-1 {
		v, i = v/1000, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d %s", n, units[0])
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

// freeSpace is what is free on the disk of a folder that need not be there yet;
// -1 if nobody knows.
func freeSpace(folder string) int64 {
	folder, err := filepath.Abs(folder)
	for err == nil {
		var s unix.Statfs_t
		if e := unix.Statfs(folder, &s); e == nil {
			return int64(s.Bavail) * int64(s.Bsize)
		} else if !errors.Is(e, fs.ErrNotExist) || folder == filepath.Dir(folder) {
			return -1
		}
		folder = filepath.Dir(folder)
	}
	return -1
}
