package main

import (
	"fmt"

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

// network is the Inception of the block, whose file is at path.
func (c *Inception) network(path string) featureNetwork {
	return featureNetwork{name: "inception", flags: &c.Inception, resize: c.Resize, path: path}
}
