package bench

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"sagbench/configs"
	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/run"
	"sagbench/models"
	"sagbench/models/ort"
)

// A networkColumn is what networks are timed in: a peer of peers.py, or sagbench.
type networkColumn struct {
	title string
	own   computation // the zero one for a peer
	rival string      // the title of the comparison that it is part of; "" = none
}

const (
	compiledRival = "float32: torch.compile over sagbench"
	halfRival     = "half precision: the fastest of others over sagbench"
)

// peersOnCPU are the columns of a CPU's sections. The bfloat16 of sagbench is that of
// OpenVINO's plugin, or emulated where the plugin lacks it on this processor, which the
// note says.
func (b *bench) peersOnCPU() (columns []networkColumn, note string) {
	half := computation{"openvino", ort.BFloat16}
	if err := half.options(b.options).CheckPrecision(half.precision); err != nil {
		half.device, note = "cpu", fmt.Sprintf("sagbench, bf16, is emulated: %v", err)
	}
	return []networkColumn{
		{"torch", computation{}, ""}, {"torch.compile", computation{}, compiledRival},
		{"torch.compile, bf16", computation{}, halfRival}, {"OpenVINO, bf16", computation{}, halfRival},
		{"sagbench", computation{"cpu", ort.Float32}, compiledRival}, {"sagbench, bf16", half, halfRival},
	}, note
}

// peersOnDevice are the columns of the section of a device: half precision is bfloat16
// on a processor, and float16 on anything else. The CPU's own is emulated, and not
// there to be fast.
func peersOnDevice(device ort.Device) []networkColumn {
	half, short := ort.Float16, "fp16"
	if device.Name == "cpu" || device.Where == "CPU" {
		half, short = ort.BFloat16, "bf16"
	}
	all := []networkColumn{
		{"torch", computation{}, ""}, {"torch.compile", computation{}, compiledRival}, {"torch.compile, " + short, computation{}, halfRival},
		{"sagbench", computation{device.String(), ort.Float32}, compiledRival},
	}
	if device.Name != "cpu" {
		all = append(all, networkColumn{"sagbench, " + short, computation{device.String(), half}, halfRival})
	}
	return all
}

// ofPrecision are the columns of float32, or those of half precision; all if precision is "".
func ofPrecision(columns []networkColumn, precision string) ([]networkColumn, error) {
	switch precision {
	case "":
		return columns, nil
	case ort.Float32, ort.BFloat16, ort.Float16:
		return slices.DeleteFunc(columns, func(c networkColumn) bool { return (c.rival == halfRival) != (precision != ort.Float32) }), nil
	}
	return nil, fmt.Errorf("bench: peers are timed in float32 and in half precision, not in %s", precision)
}

// torchDevice is what torch calls the hardware that a device computes on.
func torchDevice(device ort.Device) string {
	kind, number, _ := strings.Cut(device.Where, ".")
	switch {
	case device.Name == "cuda" || device.Name == "tensorrt-rtx":
		return "cuda:" + device.Where
	case kind == "GPU":
		return "xpu:" + cmp.Or(number, "0")
	case kind == "NPU":
		return "npu"
	case device.Name == "webgpu":
		return "gpu"
	}
	return "cpu"
}

// A peerNetwork is a network by its name in officialModels, or the embedded one, with
// the batches, and how often each is timed; the best time counts.
type peerNetwork struct {
	name, title string
	batches     []int
	rounds      int
}

// A peerNets is a section that times networks.
type peerNets struct {
	name     string
	networks []peerNetwork
	columns  func(*bench) (columns []networkColumn, note string)
	device   string // as torch calls it
}

var (
	peersOfCPU = peerNets{peerNetsSection, []peerNetwork{
		{embeddedADM, embeddedTitle, []int{1, 8, 64}, peerRounds}, {"64x64_diffusion", "ADM 64×64", []int{1, 8, 64}, 1},
	}, (*bench).peersOnCPU, "cpu"}
	peersOfFamilies = peerNets{peerFamiliesSection, []peerNetwork{
		{"SiT-XL-2-256x256", "SiT-XL/2, 256×256", []int{1}, peerRounds}, {"edm-imagenet-64x64-cond-adm", "EDM ImageNet 64×64", []int{1}, peerRounds},
		{"edm2-img512-s", "EDM2-S, 512×512", []int{1}, peerRounds},
	}, (*bench).peersOnCPU, "cpu"}
)

// peersOfDevice is the section of the device that was chosen. A processor is spared the
// larger network at 64 images, which takes minutes a call.
func (b *bench) peersOfDevice() error {
	device, err := ort.ParseDevice(b.options.Device)
	if err != nil {
		return err
	}
	batches := []int{1, 8, 64}
	if torchDevice(device) == "cpu" {
		batches = batches[:2]
	}
	return b.peerNets(peerNets{peerDeviceSection, []peerNetwork{
		{embeddedADM, embeddedTitle, []int{1, 8, 64}, peerRounds}, {"64x64_diffusion", "ADM 64×64", batches, 1},
	}, func(*bench) ([]networkColumn, string) { return peersOnDevice(device), "" }, torchDevice(device)})
}

const (
	embeddedADM   = "adm-fashion"
	embeddedTitle = "ADM, embedded"
)

// peerLimit is how long one measurement may take, with loading and the first call. A
// library without kernels for this processor can take thirty times as long as it does in float32.
const peerLimit = 15 * time.Minute

// peerNets times the networks of a section in public libraries and in sagbench, in turns, each time in a
// process of its own. A library that fails, or that reaches the limit, has no time then
// nor with more images; why is told below the table, and all that it said on standard
// error.
func (b *bench) peerNets(p peerNets) error {
	if task := os.Getenv(childEnv); task != "" {
		b.scratch = os.Getenv(peersEnv)
		return b.ownNetwork(task)
	}
	python, script, err := b.peerScript()
	if err == nil {
		err = b.writeNetworks(p.networks)
	}
	if err != nil {
		return err
	}
	columns, note := p.columns(b)
	if columns, err = ofPrecision(columns, b.precision); err != nil {
		return err
	}
	titles, rivals := []string{"network", "batch"}, []string(nil)
	for _, c := range columns {
		titles = append(titles, c.title)
		if c.own.device != "" {
			rivals = append(rivals, c.rival)
		}
	}
	b.header(append(titles, rivals...)...)
	var failures []string
	for _, n := range p.networks {
		failed := make([]bool, len(columns))
		for _, batch := range n.batches {
			times := slices.Repeat([]float64{math.Inf(1)}, len(columns))
			for range n.rounds {
				for i, c := range columns {
					if failed[i] {
						continue
					}
					task := fmt.Sprintf("%s/%d", n.name, batch)
					seconds, err := b.timeNetwork(peerLimit, func(ctx context.Context) (*exec.Cmd, error) {
						if c.own.device != "" {
							return b.child(ctx, p.name, task+"/"+c.own.precision, c.own.device)
						}
						cmd := exec.CommandContext(ctx, python, script, c.title, task, b.scratch, p.device)
						cmd.Env = b.peerEnv()
						return cmd, nil
					})
					switch {
					case b.ctx.Err() != nil:
						return err
					case err != nil:
						failed[i] = true
						b.progress.Note(fmt.Sprintf("%s, %s: %v", c.title, task, err))
						failures = append(failures, fmt.Sprintf("%s, %s, batch %d: %s", c.title, n.title, batch, lastLine(err)))
					default:
						times[i] = min(times[i], seconds)
					}
				}
			}
			cells := []any{n.title, batch}
			for i, s := range times {
				if failed[i] {
					cells, times[i] = append(cells, "—"), math.Inf(1)
					continue
				}
				cells = append(cells, ms(time.Duration(s*float64(time.Second))))
			}
			for _, rival := range rivals {
				cells = append(cells, lead(columns, times, rival))
			}
			b.row(cells...)
		}
	}
	if note != "" {
		failures = append(failures, note)
	}
	for _, text := range failures {
		fmt.Fprintf(b.out, "\n%s\n", text)
	}
	return nil
}

// timeNetwork runs the process of one measurement, for as long as it may take.
func (b *bench) timeNetwork(limit time.Duration, process func(context.Context) (*exec.Cmd, error)) (seconds float64, err error) {
	ctx, cancel := context.WithTimeout(b.ctx, limit)
	defer cancel()
	cmd, err := process(ctx)
	if err != nil {
		return 0, err
	}
	cmd.WaitDelay = time.Second // processes of its own may still hold its output
	var m peerTimes
	err = m.add(cmd)
	switch {
	case ctx.Err() == context.DeadlineExceeded:
		return 0, fmt.Errorf("it took more than %s", human.Duration(limit))
	case err != nil:
		return 0, err
	}
	return m.seconds[0], nil
}

// lastLine is the last line of what a process failed with, where Python has its errors.
func lastLine(err error) string {
	text := strings.TrimSpace(err.Error())
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// lead is how many times as long as sagbench the fastest peer of a comparison takes;
// "—" where one of the two was not measured.
func lead(columns []networkColumn, times []float64, rival string) string {
	own, peer := math.Inf(1), math.Inf(1)
	for i, c := range columns {
		switch {
		case c.rival != rival:
		case c.own.device != "":
			own = min(own, times[i])
		default:
			peer = min(peer, times[i])
		}
	}
	return ratio(peer, own)
}

// ratio is a over b; "—" where one of them was not measured.
func ratio(a, b float64) string {
	if math.IsInf(a, 1) || math.IsInf(b, 1) {
		return "—"
	}
	return fmt.Sprintf("%.2f ×", a/b)
}

// networkRef is one of the networks, with its checkpoint.
func (b *bench) networkRef(name string) (n plan.NetworkRef, err error) {
	if name == embeddedADM {
		r, err := b.loadRow("configs/table1-fashion.yaml", "Fashion-MNIST (uncond.)")
		if err != nil {
			return n, err
		}
		return r.Model, nil
	}
	return b.officialModel(name)
}

// writeNetworks writes networks.json, which the script reads, and checkpoints of random
// weights beside it.
func (b *bench) writeNetworks(networks []peerNetwork) error {
	type network struct {
		Family     string          `json:"family"`
		Checkpoint string          `json:"checkpoint"`
		Flags      json.RawMessage `json:"flags"`
	}
	all := map[string]network{}
	for _, p := range networks {
		n, err := b.networkRef(p.name)
		if err == nil && p.name != embeddedADM {
			err = writeRandom(n)
		}
		if err != nil {
			return err
		}
		flags, err := configs.Canonical(n.Flags)
		if err != nil {
			return err
		}
		path, err := filepath.Abs(n.Checkpoint.Path)
		if err != nil {
			return err
		}
		all[p.name] = network{n.Family, path, flags}
	}
	data, err := json.Marshal(all)
	return errors.Join(err, os.WriteFile(filepath.Join(b.scratch, "networks.json"), data, 0o600))
}

// ownNetwork is the process in which sagbench computes a network: name/batch/precision.
func (b *bench) ownNetwork(task string) error {
	parts := strings.Split(task, "/")
	batch, err := strconv.Atoi(parts[1])
	if err != nil {
		return err
	}
	n, err := b.networkRef(parts[0])
	if err != nil {
		return err
	}
	n.Precision = parts[2]
	m, err := models.Open(&n.Ref, models.Options{Options: b.options})
	if err != nil {
		return err
	}
	defer m.Close()
	g := m.(models.Generator)
	x, c, err := run.NoiseInput(g, batch)
	if err != nil {
		return err
	}
	best, _, err := measure(func() error {
		_, err := g.Denoise(b.ctx, x, midway(g), c)
		return err
	})
	if err == nil {
		fmt.Fprintln(b.out, best.Seconds(), peakMemory())
	}
	return err
}
