package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"sagbench/eval"
	"sagbench/models"
	"sagbench/models/checkpoint"
)

// A featureNetwork is a network that images are compared with.
type featureNetwork struct {
	name   string // in models.Extractors
	flags  models.ExtractorFamily
	resize models.Resize
	path   string
}

// hash is the sha256 of the network's file.
func (n featureNetwork) hash(h hashes) (string, error) {
	sum, err := h.of(n.path)
	if err == nil {
		err = checkpoint.CheckName(n.path, sum)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", n.name, err)
	}
	return sum, nil
}

// key tells which features the network computes.
func (n featureNetwork) key(sha256 string) string {
	return fmt.Sprintf("%s %s %s %+v", n.name, sha256, n.resize, n.flags)
}

// flags adds the block's settings to a command.
func (c *Inception) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.Checkpoint, "inception", "", "weights of the FID Inception, with pytorch-fid's names")
	f.IntVar(&c.InputSize, "input-size", c.InputSize, "height and width that images are resized to")
	f.StringVar((*string)(&c.Resize), "resize", "", "how: tf (ADM's evaluator), torch (pytorch-fid) or clean (clean-fid); the protocol's if absent")
}

// settle takes what the command line leaves open from the protocol.
func (c *Inception) settle(p eval.Protocol) error {
	if c.Checkpoint == "" {
		return fmt.Errorf("--inception is missing: the FID Inception's weights, published as pt_inception-2015-12-05-6726825d.pth at %s", inceptionPage)
	}
	if c.Resize == "" {
		c.Resize = models.Resize(p.Resize)
	}
	if err := c.Validate(); err != nil {
		return fmt.Errorf("--%w", err)
	}
	return nil
}

// network is the Inception of the block, whose file is at path.
func (c *Inception) network(path string) featureNetwork {
	return featureNetwork{name: "inception", flags: &c.Inception, resize: c.Resize, path: path}
}
