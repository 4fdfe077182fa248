package main

import (
	"github.com/spf13/cobra"

	"sagbench/experiments/bench"
	"sagbench/models/ort"
)

func devicesCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "devices",
		Short: "list what networks can run on here",
		Long: `Lists the devices of this machine as --device takes them, with their names, memory
where it is told, and the precisions that can be asked for; and for every provider
that has none here what is missing: a package, which make onnxruntime DEVICE=…
fetches, or a driver.`,
		Example: `  sagbench devices
  sagbench devices --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return bench.Devices(cmd.OutOrStdout(), asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// A deviceFlag is a device by the name that ort.ParseDevice reads.
type deviceFlag struct{ name *string }

func (d deviceFlag) String() string { return *d.name }

func (deviceFlag) Type() string { return "string" }

// Set implements pflag.Value.
func (d deviceFlag) Set(text string) error {
	device, err := ort.ParseDevice(text)
	if err == nil {
		*d.name = device.String()
	}
	return err
}
