package ort

import (
	"errors"
	"os/exec"
	"strconv"
	"strings"
)

// A Found is a device that is here: what --device takes, and what is known of it.
type Found struct {
	Device     string   `json:"device"`
	Name       string   `json:"name"`
	Kind       string   `json:"kind"`             // CPU, GPU or NPU
	Memory     int64    `json:"memory,omitempty"` // bytes; 0 where nobody tells
	Kernels    string   `json:"kernels,omitempty"`
	Precisions []string `json:"precisions"` // that can be asked for
}

// Find lists the devices that the provider has here. An error says why there are
// none, and what to do. Of the CPU it knows neither name nor memory.
func (p *Provider) Find() ([]Found, error) {
	switch {
	case p.Name == "cpu":
		return []Found{{Device: "cpu", Kind: "CPU", Kernels: Kernels(), Precisions: p.offered(Hardware{})}}, nil
	case p.plugin == nil:
		return p.findCUDA()
	}
	if err := p.load(); err != nil {
		return nil, err
	}
	all, err := p.found()
	if err == nil && len(all) == 0 {
		err = errors.New("there is no device for it here; " + p.needs)
	}
	var found []Found
	for _, h := range all {
		memory, _ := strconv.ParseInt(h.Told["GPU_DEVICE_TOTAL_MEM_SIZE"], 10, 64)
		found = append(found, Found{Device: p.Name + ":" + h.Where, Name: h.Name, Kind: h.Kind, Memory: memory, Precisions: p.offered(h)})
	}
	return found, err
}

// offered are the names of the precisions that a device can be asked for.
func (p *Provider) offered(h Hardware) (names []string) {
	for _, one := range p.Precisions {
		if p.can == nil || p.can(h, one) {
			names = append(names, one.Name)
		}
	}
	return names
}

// findCUDA is Find for the provider of the runtime's GPU build: it lists no devices, so
// the driver's tool is asked, whose numbers are those that the provider takes
// (CUDA_DEVICE_ORDER).
func (p *Provider) findCUDA() ([]Found, error) {
	if err := CheckDevice(Options{Device: p.Name}); err != nil {
		return nil, err
	}
	gpus := nvidiaGPUs()
	if len(gpus) == 0 {
		gpus = [][]string{{"0", "NVIDIA GPU, whose name nvidia-smi tells", "0"}}
	}
	var found []Found
	for _, g := range gpus {
		mebibytes, _ := strconv.ParseInt(g[2], 10, 64)
		found = append(found, Found{Device: p.Name + ":" + g[0], Name: g[1], Kind: "GPU", Memory: mebibytes << 20, Precisions: p.offered(Hardware{})})
	}
	return found, nil
}

// nvidiaGPUs are number, name and MiB of each NVIDIA GPU; none where there is no driver.
func nvidiaGPUs() (gpus [][]string) {
	out, err := exec.Command("nvidia-smi", "--query-gpu=index,name,memory.total", "--format=csv,noheader,nounits").Output()
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(out)) {
		if fields := strings.Split(strings.TrimSpace(line), ", "); len(fields) == 3 {
			gpus = append(gpus, fields)
		}
	}
	return gpus
}

// HardwareName is what a device that was opened is, "" where nobody tells and of the CPU.
func (d Device) HardwareName() string {
	if d.plugin != nil {
		h, _ := d.hardware()
		return h.Name
	}
	for _, g := range nvidiaGPUs() {
		if g[0] == d.Where {
			return g[1]
		}
	}
	return ""
}
