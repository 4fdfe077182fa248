package bench

import (
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
	"sagbench/experiments/plan"
	"sagbench/experiments/run"
	"sagbench/models"
	"sagbench/models/ort"
)

// networkColumns are what networks are timed in: peers of peers.py and sagbench, whose
// bfloat16 on a CPU is that of OpenVINO's plugin.
var networkColumns = []struct {
	title string
	own   computation // the zero one for a peer
}{
	{title: "torch"}, {title: "torch.compile"}, {title: "torch.compile, bf16"}, {title: "OpenVINO, bf16"},
	{"sagbench", computation{"cpu", ort.Float32}}, {"sagbench, bf16", computation{"openvino", ort.BFloat16}},
}

// A peerNetwork is a network by its name in officialModels, or the embedded one, with
// the batches, and how often each is timed; the best time counts.
type peerNetwork struct {
	name, title string
	batches     []int
	rounds      int
}

// peerNetworks are the networks by the section that times them.
var peerNetworks = map[string][]peerNetwork{
	peerNetsSection: {{embeddedADM, "ADM, embedded", []int{1, 8, 64}, peerRounds}, {"64x64_diffusion", "ADM 64×64", []int{1, 8, 64}, 1}},
	peerFamiliesSection: {
		{"SiT-XL-2-256x256", "SiT-XL/2, 256×256", []int{1}, peerRounds}, {"edm-imagenet-64x64-cond-adm", "EDM ImageNet 64×64", []int{1}, peerRounds},
		{"edm2-img512-s", "EDM2-S, 512×512", []int{1}, peerRounds},
	},
}

const embeddedADM = "adm-fashion"

// peerNets times the networks of a section in public libraries and in sagbench, in turns, each time in a
// process of its own. A library that fails has no time, and its error goes to standard
// error.
func (b *bench) peerNets(section string) error {
	if task := os.Getenv(childEnv); task != "" {
		b.scratch = os.Getenv(peersEnv)
		return b.ownNetwork(task)
	}
	python, script, err := b.peerScript()
	if err == nil {
		err = b.writeNetworks(section)
	}
	if err != nil {
		return err
	}
	titles := []string{"network", "batch"}
	for _, c := range networkColumns {
		titles = append(titles, c.title)
	}
	b.header(append(titles, "float32: torch.compile over sagbench", "bf16: the best of others over sagbench")...)
	for _, n := range peerNetworks[section] {
		for _, batch := range n.batches {
			times := slices.Repeat([]float64{math.Inf(1)}, len(networkColumns))
			for range n.rounds {
				for i, c := range networkColumns {
					task := fmt.Sprintf("%s/%d", n.name, batch)
					cmd := exec.CommandContext(b.ctx, python, script, c.title, task, b.scratch)
					cmd.Env = b.peerEnv()
					if c.own.device != "" {
						if cmd, err = b.child(section, task+"/"+c.own.precision, c.own.device); err != nil {
							return err
						}
					}
					m := &peerTimes{}
					if err := m.add(cmd); err == nil {
						times[i] = min(times[i], m.seconds[0])
					} else if b.ctx.Err() != nil {
						return err
					} else {
						b.progress.Note(fmt.Sprintf("%s, %s: %v", c.title, task, err))
					}
				}
			}
			cells := []any{n.title, batch}
			for _, s := range times {
				if math.IsInf(s, 1) {
					cells = append(cells, "—")
					continue
				}
				cells = append(cells, ms(time.Duration(s*float64(time.Second))))
			}
			b.row(append(cells, ratio(times[1], times[4]), ratio(min(times[2], times[3]), times[5]))...)
		}
	}
	return nil
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

// writeNetworks writes networks.json for a section, which the script reads, and checkpoints of
// random weights beside it.
func (b *bench) writeNetworks(section string) error {
	type network struct {
		Family     string          `json:"family"`
		Checkpoint string          `json:"checkpoint"`
		Flags      json.RawMessage `json:"flags"`
	}
	all := map[string]network{}
	for _, p := range peerNetworks[section] {
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
