package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"sagbench/configs"
	"sagbench/eval"
	"sagbench/models"
	"sagbench/models/checkpoint"
)

// A DINOv2 is the block of the network that FD-DINOv2 looks at.
type DINOv2 struct {
	Checkpoint    string        `yaml:"checkpoint" doc:"DINOv2 as published; FD-DINOv2 is of ViT-L/14 without registers (dinov2_vitl14_pretrain.pth)"`
	Resize        models.Resize `yaml:"resize" doc:"how images come to input_size: pil (dgm-eval), clean (dgm-eval --clean_resize) or edm2 (EDM2)"`
	models.DINOv2 `yaml:",inline"`
}

// An ONNX is the block of a feature network of the user's own.
type ONNX struct {
	Checkpoint      string        `yaml:"checkpoint" doc:"an .onnx file that takes RGB images"`
	Resize          models.Resize `yaml:"resize" doc:"how images come to the network's size: pil (torchvision on image files), clean, edm2, tf or torch"`
	models.ONNXFile `yaml:",inline"`
}

// Validate implements configs.Validator.
func (c *DINOv2) Validate() error { return checkResize(c.Resize) }

// Validate implements configs.Validator.
func (c *ONNX) Validate() error { return configs.Join(checkResize(c.Resize), c.ONNXFile.Validate()) }

func checkResize(r models.Resize) error {
	if _, ok := models.Resizes[r]; !ok {
		return fmt.Errorf("resize is %q, expected tf, torch, clean, pil or edm2", r)
	}
	return nil
}

// A featureNetwork is a network that images are compared with.
type featureNetwork struct {
	name   string // in models.Extractors, and of its block
	title  string // for people
	flags  models.ExtractorFamily
	resize models.Resize
	path   string
}

// featureNetworks are the networks that the blocks describe, by name.
func (e *Experiment) featureNetworks() map[string]featureNetwork {
	all := map[string]featureNetwork{}
	for _, n := range []featureNetwork{
		{"inception", "Inception network", &e.Inception.Inception, e.Inception.Resize, e.Inception.Checkpoint},
		{"dinov2", "DINOv2 network", &e.DINOv2.DINOv2, e.DINOv2.Resize, e.DINOv2.Checkpoint},
		{"onnx", "feature network", &e.ONNX.ONNXFile, e.ONNX.Resize, e.ONNX.Checkpoint},
	} {
		all[n.name] = n
	}
	return all
}

// defaultNetworks sets the blocks to the defaults of their networks.
func (e *Experiment) defaultNetworks() {
	e.Network = "inception"
	inception := models.Extractors["inception"]().(*models.Inception)
	e.Inception = Inception{Resize: inception.Resize(), Inception: *inception}
	dino := models.Extractors["dinov2"]().(*models.DINOv2)
	e.DINOv2 = DINOv2{Resize: dino.Resize(), DINOv2: *dino}
	file := models.Extractors["onnx"]().(*models.ONNXFile)
	e.ONNX = ONNX{Resize: file.Resize(), ONNXFile: *file}
}

// checkNetwork reports an unknown main network.
func (e *Experiment) checkNetwork() error {
	if _, ok := models.Extractors[e.Network]; !ok {
		return fmt.Errorf("network is %q, expected %s", e.Network, strings.Join(models.Extractors.Names(), ", "))
	}
	return nil
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

// settings are the resize and the flags as JSON.
func (n featureNetwork) settings() (json.RawMessage, error) {
	all, err := fieldsOf(n.flags)
	if err != nil {
		return nil, err
	}
	if all["resize"], err = configs.Canonical(n.resize); err != nil {
		return nil, err
	}
	return configs.Canonical(all)
}

// A share of an evaluation is one network and the metrics that compare its
// features.
type share struct {
	featureNetwork
	metrics []configs.Named[eval.Metric]
}

// sharesOf parts metrics by network, in the order of their first metrics: main,
// but for those that are of a network of their own.
func sharesOf(metrics []configs.Named[eval.Metric], networks map[string]featureNetwork, main string) []share {
	var all []share
	for _, m := range metrics {
		name := eval.NetworkOf(m.Value)
		if name == "" {
			name = main
		}
		i := slices.IndexFunc(all, func(s share) bool { return s.name == name })
		if i < 0 {
			i = len(all)
			all = append(all, share{featureNetwork: networks[name]})
		}
		all[i].metrics = append(all[i].metrics, m)
	}
	return all
}

// able is an error where the network lacks what its metrics compare.
func (s share) able(x models.Extractor) error {
	want, has := generatedParts(s.metrics), x.Outputs()
	var faults []error
	lacks := func(what, metric string) {
		faults = append(faults, fmt.Errorf("%s has no %s, which %s needs; leave it out of the metrics", filepath.Base(s.path), what, metric))
	}
	if want.spatial && !slices.Contains(has, models.Spatial) {
		lacks("spatial features", "sfid")
	}
	if _, classifies := x.(models.Classifying); want.logits && !classifies && !slices.Contains(has, models.Logits) {
		lacks("class logits", "is")
	}
	return errors.Join(faults...)
}

// names lists the share's metrics.
func (s share) names() string {
	var all []string
	for _, m := range s.metrics {
		all = append(all, m.Name)
	}
	return strings.Join(all, ", ")
}
