package sd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sagbench/models"
	"sagbench/sampling"
)

// A pipeline is a family of this package with its flags.
type pipeline struct {
	*flags
	*generation
	conditioner
	stated   []statedText  // one for each text encoder
	unetFile sampling.File // the U-Net that takes the place of the checkpoint's; zero = none
}

// A statedText is what the flags say of a text encoder of a single file.
type statedText struct {
	tokenizer sampling.File
	sizes     *clipSizes
}

// aboutSingle reports whether a flag is set that single files alone have.
func (p pipeline) aboutSingle() bool {
	return !p.OriginalConfig.IsZero() || p.ExtractEMA || slices.ContainsFunc(p.stated, func(t statedText) bool { return !t.tokenizer.IsZero() || t.sizes != nil })
}

// open opens the network, or the component of it that the flags name.
func (p pipeline) open(path string, opt models.Options) (models.Model, error) {
	if err := models.CheckTaps(opt.Taps); err != nil {
		return nil, fmt.Errorf("models: %s: %w", p.name, err)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("models: %s: no such file or folder; expected a diffusers folder of %s, or one .safetensors or .ckpt file", path, p.name)
	case err != nil:
		return nil, fmt.Errorf("models: %w", err)
	case !info.IsDir():
		return p.openSingle(path, opt)
	case p.aboutSingle():
		return nil, fmt.Errorf("models: %s: original_config, tokenizer, text_encoder and extract_ema are for single files; a folder of diffusers says all of it itself", path)
	}
	if path, err = snapshot(path); err != nil {
		return nil, err
	}
	return p.openFolder(path, opt)
}

func (p pipeline) openFolder(path string, opt models.Options) (models.Model, error) {
	switch p.Component {
	case "":
	case "unet":
		return p.folderUNet(partFolder(path, "unet"), opt)
	case "vae":
		return (&VAE{Variant: p.Variant}).Open(partFolder(path, "vae"), opt)
	default:
		return (&CLIPText{Variant: p.Variant}).Open(partFolder(path, p.Component), opt)
	}
	if err := p.checkPipeline(path); err != nil {
		return nil, err
	}
	n := &Net{pipeline: p, path: path}
	plain := models.Options{Options: opt.Options}
	var errUNet, errVAE, errScheduler, errTexts error
	n.unet, errUNet = p.folderUNet(filepath.Join(path, "unet"), opt)
	n.vae, errVAE = (&VAE{Variant: p.Variant}).load(filepath.Join(path, "vae"), plain)
	for _, t := range p.textParts {
		text, errText := (&CLIPText{Variant: p.Variant}).load(filepath.Join(path, t.encoder), plain)
		tokens, errTokens := openCLIPTokens(filepath.Join(path, t.tokenizer))
		n.texts, n.tokens, errTexts = append(n.texts, text), append(n.tokens, tokens), errors.Join(errTexts, errText, errTokens)
	}
	n.scheduler, errScheduler = readScheduler(filepath.Join(path, "scheduler", "scheduler_config.json"))
	return n.checked(errors.Join(errUNet, errVAE, errTexts, errScheduler))
}

// folderUNet opens the U-Net of a folder, with the weights of another file where
// the flags name one.
func (p pipeline) folderUNet(folder string, opt models.Options) (*sdUNet, error) {
	if p.unetFile.IsZero() {
		return loadPart(folder, newSDUNetConfig(), p.Variant, p.newUNet, opt)
	}
	config := newSDUNetConfig()
	if err := readConfig(folder, config); err != nil {
		return nil, err
	}
	return p.otherUNet(config, opt)
}

// otherUNet opens the U-Net that the flags name, in diffusers' names.
func (p pipeline) otherUNet(config *sdUNetConfig, opt models.Options) (*sdUNet, error) {
	path, err := p.unetFile.Find()
	if err != nil {
		return nil, err
	}
	w, err := fileWeights(path, "")
	if err != nil {
		return nil, err
	}
	var n *sdUNet
	if what := models.Foreign(w.tensors); what != "" {
		err = fmt.Errorf("models: unet: %s: %s", path, what)
	} else {
		n, err = p.newUNet(config, w, opt)
	}
	if err != nil {
		w.Close()
	}
	return n, err
}

// loneUNet is the U-Net of a file in diffusers' names: by its config.json where that
// lies beside it, or else by its shapes.
func (p pipeline) loneUNet(w *weights, opt models.Options) (*sdUNet, error) {
	c, err := newSDUNetConfig(), error(nil)
	if besideConfig(w.path) != "" {
		err = readConfig(filepath.Dir(w.path), c)
	} else {
		c = (&singleFile{unet: w.tensors, blocks: w.tensors.Count("down_blocks.0.resnets.%d.conv1.weight")}).unetConfig()
		err = c.Validate()
	}
	if err != nil {
		return nil, fmt.Errorf("models: %s: %w", w.path, err)
	}
	return p.newUNet(c, w, opt)
}

// partFolder is the folder of a part, or path itself where that is one.
func partFolder(path, part string) string {
	if _, err := os.Stat(filepath.Join(path, "config.json")); err == nil {
		return path
	}
	return filepath.Join(path, part)
}

// otherPipelines are the pipelines of the families of this package, with what is
// said of each to another family.
var otherPipelines = []struct {
	classes []string
	what    string
}{
	{unet2DPipelines, "which draws without prompts (family: unet2d)"},
	{[]string{ditPipeline}, "which draws from labels (family: dit2d)"},
	{sdPipelines, "of Stable Diffusion 1.x or 2.x (family: sd)"},
	{sdxlPipelines, "of Stable Diffusion XL (family: sdxl)"},
}

// checkPipeline looks at model_index.json, where there is one, and for the
// folders of all parts.
func (p pipeline) checkPipeline(path string) error {
	index, err := readJSON(filepath.Join(path, "model_index.json"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("models: %w", err)
	}
	unsupported := func(key string, supported []string) error {
		if at, ok := index.at(key); ok && supported != nil && !slices.Contains(supported, at.text()) {
			return fmt.Errorf("models: %w", at.errorf("%q is not supported; supported: %s", at.text(), strings.Join(supported, ", ")))
		}
		return nil
	}
	class := pipelineClass(path)
	for _, other := range otherPipelines {
		if slices.Contains(other.classes, class) && !slices.Contains(p.pipelines, class) {
			return fmt.Errorf("models: %s is the folder of a %s, %s", path, class, other.what)
		}
	}
	if err := unsupported("_class_name", p.pipelines); err != nil {
		return err
	}
	if p.refused != nil {
		if what := p.refused(index); what != "" {
			return fmt.Errorf("models: %s: %s", path, what)
		}
	}
	var errs []error
	var missing, names []string
	for _, part := range p.parts() {
		names = append(names, part.name)
		if info, err := os.Stat(filepath.Join(path, part.name)); err != nil || !info.IsDir() {
			missing = append(missing, part.name)
			continue
		}
		errs = append(errs, unsupported(part.name+".1", part.classes))
	}
	if of := partClass(path); of != "" && len(missing) > 0 {
		return fmt.Errorf("models: %s is the folder of a part (%s); give the folder that holds it, or component: %s for the part alone", path, of, listed(p.components(), "or"))
	}
	if len(missing) > 0 {
		errs = append(errs, fmt.Errorf("models: %s: %s is missing; a %s folder has %s (or give component: %s for one of them)",
			path, strings.Join(missing, ", "), p.name, listed(names, "and"), listed(p.components(), "or")))
	}
	return errors.Join(errs...)
}

// listed is "a, b and c".
func listed(names []string, word string) string {
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " " + word + " " + names[last]
}
