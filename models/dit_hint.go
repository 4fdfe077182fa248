package models

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
)

// hint compares the flags with what the shapes of a checkpoint suggest, and
// names those that differ.
func (c *DiT) hint(sd checkpoint.StateDict) string {
	g, ok := guessDiT(sd)
	if !ok {
		return "its keys are not those of a DiT (no x_embedder.proj.weight, pos_embed or final_layer.linear.weight)"
	}
	var diffs []string
	differ := func(flag string, have, want any) {
		if have != want {
			diffs = append(diffs, fmt.Sprintf("%s: %v (not %v)", flag, want, have))
		}
	}
	if name := g.published(); name != "" && c.Model != "" {
		differ("model", strconv.Quote(c.Model), strconv.Quote(name))
	}
	if len(diffs) == 0 {
		differ("hidden_size", c.HiddenSize, g.HiddenSize)
		differ("depth", c.Depth, g.Depth)
		differ("patch_size", c.PatchSize, g.PatchSize)
	}
	differ("input_size", c.InputSize, g.InputSize)
	differ("in_channels", c.InChannels, g.InChannels)
	differ("learn_sigma", c.LearnSigma, g.LearnSigma)
	differ("mlp_ratio", c.MLPRatio, g.MLPRatio)
	if c.rows() != g.rows() {
		diffs = append(diffs, fmt.Sprintf("a label table of %d rows (not %d): num_classes %d and the null class, or %[1]d with class_dropout_prob 0", g.rows(), c.rows(), g.NumClasses))
	}
	if len(diffs) == 0 {
		return "its shapes agree with the flags, its keys do not: is it a file of another family?"
	}
	return "its shapes suggest " + strings.Join(diffs, ", ")
}

// guessDiT reads the flags of a DiT off its shapes; ok is false when the keys
// are not those of one. num_heads leaves no trace in the shapes; it is that of
// the published width, or 1. The label table is taken to have a null class.
func guessDiT(sd checkpoint.StateDict) (c *DiT, ok bool) {
	shape := func(key string, rank int) []int {
		t, has := sd[key]
		if ok = ok && has && len(t.Shape) == rank; !ok {
			return make([]int, rank)
		}
		return t.Shape
	}
	ok = true
	patch, pos := shape("x_embedder.proj.weight", 4), shape("pos_embed", 3)
	out, labels := shape("final_layer.linear.weight", 2), shape("y_embedder.embedding_table.weight", 2)
	fc1 := shape("blocks.0.mlp.fc1.weight", 2)
	if !ok || patch[0] == 0 || patch[2] == 0 {
		return nil, false
	}
	c = newDiT()
	c.HiddenSize, c.InChannels, c.PatchSize, c.NumHeads = patch[0], patch[1], patch[2], 1
	c.InputSize = c.PatchSize * int(math.Round(math.Sqrt(float64(pos[1]))))
	c.NumClasses = labels[0] - 1
	c.LearnSigma = out[0] == 2*c.InChannels*c.PatchSize*c.PatchSize
	c.MLPRatio = float64(fc1[0]) / float64(c.HiddenSize)
	if int(c.MLPRatio*float64(c.HiddenSize)) < fc1[0] { // the product is cut, and the quotient was rounded
		c.MLPRatio = math.Nextafter(c.MLPRatio, math.Inf(1))
	}
	for _, has := sd["blocks.0.attn.qkv.weight"]; has; _, has = sd[fmt.Sprintf("blocks.%d.attn.qkv.weight", c.Depth)] {
		c.Depth++
	}
	for _, s := range ditSizes {
		if s.hidden == c.HiddenSize {
			c.NumHeads = s.heads
		}
	}
	return c, true
}

// published is the name of the size, "" where it is none of the table.
func (c *DiT) published() string {
	for name, s := range ditSizes {
		if s.depth == c.Depth && s.hidden == c.HiddenSize && s.patch == c.PatchSize {
			return name
		}
	}
	return ""
}

// Guess implements Guesser.
func (c *DiT) Guess(sd checkpoint.StateDict) (Guess, bool) {
	g, ok := guessDiT(sd)
	if !ok {
		return Guess{}, false
	}
	guess := Guess{Evidence: "x_embedder, t_embedder, y_embedder, blocks.N.adaLN_modulation and final_layer of DiT"}
	if name := g.published(); name != "" {
		guess.Flags = append(guess.Flags, flag("model", name))
	} else {
		heads := flag("num_heads", "?")
		heads.Note = "not in the shapes"
		guess.Flags = append(guess.Flags, flag("hidden_size", g.HiddenSize), flag("depth", g.Depth), heads, flag("patch_size", g.PatchSize))
	}
	classes := flag("num_classes", g.NumClasses)
	classes.Note = "and the null class"
	guess.Flags = append(guess.Flags, flag("input_size", g.InputSize), flag("in_channels", g.InChannels),
		flag("mlp_ratio", g.MLPRatio), classes, flag("learn_sigma", g.LearnSigma))
	if err := g.Validate(); err != nil {
		guess.Mismatches = []string{err.Error()}
		return guess, true
	}
	guess.Mismatches = mismatches(sd, func(m *onnx.Module) { g.build(m, newTaps(nil)) })
	return guess, true
}
