package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/models/ort"
)

// A listing is a provider with its devices on this machine, or why there are none.
type listing struct {
	Provider string      `json:"provider"`
	Devices  []ort.Found `json:"devices"`
	Missing  string      `json:"missing,omitempty"`
}

// Devices prints to w what networks can run on here, provider by provider, as a table
// or as JSON.
func Devices(w io.Writer, asJSON bool) error {
	var all []listing
	for _, p := range ort.Providers {
		l := listing{Provider: p.Name, Devices: []ort.Found{}}
		found, err := p.Find()
		if err != nil {
			l.Missing = err.Error()
		}
		for _, f := range found {
			if f.Device == "cpu" {
				f.Name, f.Memory = processor(), int64(plan.MachineMemory())
			}
			l.Devices = append(l.Devices, f)
		}
		all = append(all, l)
	}
	if asJSON {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(all)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "DEVICE\tNAME\tMEMORY\tPRECISIONS")
	for _, l := range all {
		for _, f := range l.Devices {
			name, memory := f.Name, "not told"
			if f.Kernels != "" {
				name += ", kernels " + f.Kernels
			}
			if f.Memory > 0 {
				memory = human.Bytes(f.Memory)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", f.Device, name, memory, strings.Join(f.Precisions, ", "))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, l := range all {
		if l.Missing != "" {
			if _, err := fmt.Fprintf(w, "\nno %s: %s\n", l.Provider, l.Missing); err != nil {
				return err
			}
		}
	}
	return nil
}
