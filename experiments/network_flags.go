package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"sagbench/configs"
	"sagbench/eval"
	"sagbench/models"
)

// networkFlags are the flags of the command line that choose feature networks.
type networkFlags struct {
	network, inception, dinov2 string
	resize, pixels             string
	inputSize                  int
	outputs                    map[string]string
}

func (n *networkFlags) register(f *pflag.FlagSet) {
	f.StringVar(&n.network, "network", "inception", "whose features the metrics compare: inception, dinov2, or an .onnx file of your own")
	f.StringVar(&n.inception, "inception", "", "weights of the FID Inception, with pytorch-fid's names")
	f.StringVar(&n.dinov2, "dinov2", "", "weights of DINOv2 ViT-L/14 as published, for fd_dinov2 and --network dinov2")
	f.IntVar(&n.inputSize, "input-size", 0, "height and width that images are resized to; 0 = 299 (inception), 224 (dinov2), or those of the .onnx file")
	f.StringVar(&n.resize, "resize", "", "how: tf (ADM's evaluator), torch (pytorch-fid), clean (clean-fid), pil (dgm-eval) or edm2; the protocol's for inception, pil for others if absent")
	f.StringToStringVar(&n.outputs, "output", nil, "outputs of the .onnx file: pool=NAME, and spatial=NAME for sFID, logits=NAME for IS")
	f.StringVar(&n.pixels, "range", "", "range in which the .onnx file takes pixels: byte (0 to 255), unit (0 to 1), signed (-1 to 1) or imagenet")
}

// shares are the networks that the metrics take, and the name of the main one.
func (n *networkFlags) shares(f *pflag.FlagSet, p eval.Protocol, metrics []configs.Named[eval.Metric]) (shares []share, main string, err error) {
	e, err := n.blocks(f, p)
	if err != nil {
		return nil, "", err
	}
	shares = sharesOf(metrics, e.featureNetworks(), e.Network)
	main = shares[0].name
	for _, s := range shares {
		if err := s.given(); err != nil {
			return nil, "", fmt.Errorf("%s: %w", s.names(), err)
		}
		if s.name == e.Network {
			main = s.name
		}
	}
	return shares, main, nil
}

// main is the main network alone.
func (n *networkFlags) main(f *pflag.FlagSet, p eval.Protocol) (featureNetwork, error) {
	e, err := n.blocks(f, p)
	if err != nil {
		return featureNetwork{}, err
	}
	network := e.featureNetworks()[e.Network]
	return network, network.given()
}

// given reports that the flag of the network's file is missing.
func (n featureNetwork) given() error {
	if n.path != "" {
		return nil
	}
	file := officialNetworks[n.name]
	return fmt.Errorf("--%s is missing: the weights of the %s, published as %s at %s", n.name, n.title, file, publishedFiles[file].Page)
}

// officialNetworks are the files of the networks that the metrics are defined on.
var officialNetworks = map[string]string{
	"inception": "pt_inception-2015-12-05-6726825d.pth",
	"dinov2":    "dinov2_vitl14_pretrain.pth",
}

// blocks are the flags as the blocks of an experiment. Resize and size are the
// main network's.
func (n *networkFlags) blocks(f *pflag.FlagSet, p eval.Protocol) (*Experiment, error) {
	e := defaults()
	e.Inception.Resize = models.Resize(p.Resize)
	e.Network, e.Inception.Checkpoint, e.DINOv2.Checkpoint = n.network, n.inception, n.dinov2
	if strings.HasSuffix(strings.ToLower(n.network), ".onnx") {
		e.Network, e.ONNX.Checkpoint = "onnx", n.network
	}
	var resize *models.Resize
	var size *int
	switch e.Network {
	case "inception":
		resize, size = &e.Inception.Resize, &e.Inception.InputSize
	case "dinov2":
		resize, size = &e.DINOv2.Resize, &e.DINOv2.InputSize
	case "onnx":
		resize, size = &e.ONNX.Resize, &e.ONNX.InputSize
	}
	if resize == nil || e.Network == "onnx" && e.ONNX.Checkpoint == "" {
		return nil, fmt.Errorf("--network is %q, expected inception, dinov2 or the path of an .onnx file", n.network)
	}
	if n.resize != "" {
		*resize = models.Resize(n.resize)
	}
	if n.inputSize != 0 {
		*size = n.inputSize
	}
	return &e, errors.Join(n.file(&e, f), e.Inception.Validate(), e.DINOv2.Validate(), e.ONNX.Validate())
}

// file sets the block of an .onnx file.
func (n *networkFlags) file(e *Experiment, f *pflag.FlagSet) error {
	if e.Network != "onnx" {
		for _, flag := range []string{"output", "range"} {
			if f.Changed(flag) {
				return fmt.Errorf("--%s is for --network FILE.onnx", flag)
			}
		}
		return nil
	}
	e.ONNX.Range = models.PixelRange(n.pixels)
	fields := map[string]*string{models.Pool: &e.ONNX.Pool, models.Spatial: &e.ONNX.Spatial, models.Logits: &e.ONNX.Logits}
	for key, name := range n.outputs {
		field, ok := fields[key]
		if !ok {
			return fmt.Errorf("--output %s=%s: expected pool=NAME, spatial=NAME or logits=NAME", key, name)
		}
		*field = name
	}
	return nil
}
