package store

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// DevicesFile is what the record of the devices that drew a run's images is called in
// its folder. There is none where the CPU drew them all.
const DevicesFile = "devices.json"

// devicesFormat is the version of the format of devices.json.
const devicesFormat = 1

// A Placement is a graph that images were drawn with on a device, and which providers
// of ONNX Runtime ran its nodes.
type Placement struct {
	Graph     string         `json:"graph,omitempty"`    // of its bytes, 10 hexadecimal digits; "" of all that the CPU drew
	Device    string         `json:"device"`             // as --device names it
	Hardware  string         `json:"hardware,omitempty"` // its name; "" where it is not known
	Precision string         `json:"precision,omitempty"`
	Nodes     map[string]int `json:"nodes,omitempty"`     // by provider
	Elsewhere map[string]int `json:"elsewhere,omitempty"` // those of other providers than the device's, by operator
	Loop      string         `json:"loop,omitempty"`      // where the states were between the steps; "" in older files and of the CPU
}

// A devicesJSON is what devices.json holds; docs/results.md describes the fields.
type devicesJSON struct {
	Format     int         `json:"format"` // devicesFormat
	Placements []Placement `json:"placements"`
	Checksum   string      `json:"checksum"` // sha256 of this file with zeros in place of these digits
}

// key tells a graph on a device from others.
func (p Placement) key() string {
	return strings.Join([]string{p.Device, p.Hardware, p.Precision, p.Graph, p.Loop}, "\x00")
}

// ReadPlacements reads the devices.json in a run's folder; none where there is no such
// file.
func ReadPlacements(folder string) ([]Placement, error) {
	path := filepath.Join(folder, DevicesFile)
	data, err := readRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var file devicesJSON
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		err = d.Decode(&file)
	}
	if err == nil && file.Format != devicesFormat {
		err = fmt.Errorf("has format %d, this program reads %d", file.Format, devicesFormat)
	}
	if err == nil {
		err = CheckSeal(data, file.Checksum)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w; without it nobody knows on which devices the images were drawn: remove it to go on all the same", path, err)
	}
	return file.Placements, nil
}

// AddPlacements adds to the devices.json in a run's folder. Several processes may add to
// one at once, where the file system can lock folders.
func AddPlacements(folder string, more []Placement) error {
	path := filepath.Join(folder, DevicesFile)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return ExplainWrite(path, err)
	}
	lock, err := os.Open(folder)
	if err != nil {
		return ExplainWrite(path, err)
	}
	defer lock.Close()
	for range 200 { // one that is frozen is not waited for any longer
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	known, err := ReadPlacements(folder)
	if err != nil {
		return err
	}
	all := map[string]Placement{}
	for _, p := range slices.Concat(known, more) {
		all[p.key()] = p
	}
	sorted := slices.SortedFunc(maps.Values(all), func(a, b Placement) int { return cmp.Compare(a.key(), b.key()) })
	data, err := encodeJSON(devicesJSON{devicesFormat, sorted, NoChecksum})
	if err != nil {
		return err
	}
	data, _ = Seal(data)
	return WriteFile(path, data)
}

// DescribePlacements are sentences about the devices, one for each with its precision:
// "drawn on webgpu:0 (NAME), float32: 810 nodes on WebGpuExecutionProvider, 6 on
// CPUExecutionProvider (Cos 1, Mul 2, …)".
func DescribePlacements(all []Placement) []string {
	sums := map[string]Placement{}
	for _, p := range all {
		p.Graph = ""
		s, known := sums[p.key()]
		if !known {
			s, s.Nodes, s.Elsewhere = p, map[string]int{}, map[string]int{}
		}
		add := func(to, from map[string]int) {
			for k, n := range from {
				to[k] += n
			}
		}
		add(s.Nodes, p.Nodes)
		add(s.Elsewhere, p.Elsewhere)
		sums[p.key()] = s
	}
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(sums)) {
		lines = append(lines, "drawn on "+sums[key].String())
	}
	return lines
}

// String is the device with the counts of its nodes.
func (p Placement) String() string {
	text := p.Device
	if p.Hardware != "" {
		text += " (" + p.Hardware + ")"
	}
	if len(p.Nodes) == 0 {
		return text
	}
	var nodes, elsewhere []string
	for _, ep := range slices.SortedFunc(maps.Keys(p.Nodes), func(a, b string) int { return cmp.Or(p.Nodes[b]-p.Nodes[a], cmp.Compare(a, b)) }) {
		nodes = append(nodes, fmt.Sprintf("%d on %s", p.Nodes[ep], ep))
	}
	for _, operator := range slices.Sorted(maps.Keys(p.Elsewhere)) {
		elsewhere = append(elsewhere, fmt.Sprintf("%s %d", operator, p.Elsewhere[operator]))
	}
	text += ", " + p.Precision + ": nodes " + strings.Join(nodes, ", ")
	if len(elsewhere) > 0 {
		text += " (" + strings.Join(elsewhere, ", ") + ")"
	}
	if p.Loop != "" {
		text += "; " + p.Loop
	}
	return text
}
