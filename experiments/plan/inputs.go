package plan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sagbench/eval/images"
	"sagbench/eval/npz"
	"sagbench/experiments/human"
	"sagbench/experiments/store"
	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/sampling"
)

// An input is a file that rows of an experiment read.
type input struct {
	sampling.File
	kind    inputKind
	weights string // set of weights in a checkpoint
	source  Source
	rows    []*Row // that need it

	comparisons []Comparison            // of the rows, where it is a feature network
	check       func(path string) error // where it is a part of a network and no checkpoint
}

// Files lists what the experiment reads, its own YAML files included, as absolute
// paths, and the environment variables that the names of these files hold, each once.
func (e *Experiment) Files() (paths, variables []string, err error) {
	paths = slices.Clone(e.sources)
	var named []sampling.File
	for _, in := range e.inputs() {
		named = append(named, in.File)
	}
	for _, r := range e.Rows {
		if r.PromptsFile != "" {
			named = append(named, r.promptsFile)
		}
		if r.NegativeFile != "" {
			named = append(named, r.negativeFile)
		}
	}
	for _, f := range named {
		path, wrong := filepath.Abs(f.Path)
		paths, err = append(paths, path), errors.Join(err, wrong)
		for _, m := range variable.FindAllStringSubmatch(f.Written, -1) {
			variables = append(variables, m[1])
		}
	}
	slices.Sort(paths)
	slices.Sort(variables)
	return slices.Compact(paths), slices.Compact(variables), err
}

type inputKind string

const (
	networkInput   inputKind = "checkpoint"
	referenceInput inputKind = "reference batch"
)

// inputs lists the files that the rows read, in the order of the rows.
func (e *Experiment) inputs() []*input {
	var all []*input
	for _, r := range e.Rows {
		need := func(kind inputKind, p sampling.File, weights string) *input {
			i := slices.IndexFunc(all, func(in *input) bool { return in.kind == kind && in.Path == p.Path && in.weights == weights })
			if i < 0 {
				i = len(all)
				all = append(all, &input{File: p, kind: kind, weights: weights, source: r.sourceOf(p.Path)})
			}
			all[i].rows = append(all[i].rows, r)
			return all[i]
		}
		for _, n := range r.Networks() {
			need(networkInput, n.Checkpoint, n.Weights)
			for _, p := range n.parts() {
				need(inputKind(p.Kind), p.File, p.Weights).check = p.Check
			}
		}
		if len(r.Metrics) > 0 {
			need(referenceInput, r.Reference, "")
			for _, c := range r.Comparisons {
				in := need(inputKind(c.Title), c.Weights, c.WeightSet)
				in.comparisons = append(in.comparisons, c)
			}
		}
	}
	return all
}

// CheckInputs opens every file that the rows read, without loading it. The
// error tells, in one message, of each that is not there or is broken, which
// rows need it and where its authors publish it.
func (e *Experiment) CheckInputs(ctx context.Context) error {
	all := e.inputs()
	var faults []string
	for _, in := range all {
		if problem := in.problem(ctx); problem != "" {
			faults = append(faults, in.describe(problem))
		}
	}
	if len(faults) == 0 {
		return e.checkFiles()
	}
	return human.Several{Inputs: len(faults), Err: fmt.Errorf("%s: %d of %d input files are missing or cannot be read; nothing was computed\n\n%s",
		e.Name, len(faults), len(all), strings.Join(faults, "\n"))}
}

// problem says why the file cannot be used; "" if it can.
func (in *input) problem(ctx context.Context) string {
	if hint := unset(in.File); hint != "" {
		return hint
	}
	info, err := os.Stat(in.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there is no such file"
	case err != nil:
		return err.Error()
	case info.IsDir() && in.comparisons != nil && !in.comparisons[0].Folder:
		return "is a folder, expected a file"
	case in.check != nil, in.comparisons != nil:
	case info.IsDir(): // some checkpoints and sets of images are folders
		return ""
	}
	if err := in.open(ctx); err != nil {
		return err.Error()
	}
	return ""
}

// open opens a file of its kind without loading it: a file that is cut off or of
// another kind is an error.
func (in *input) open(ctx context.Context) error {
	switch {
	case in.comparisons != nil:
		return in.openNetwork(ctx)
	case in.check != nil:
		return in.check(in.Path)
	}
	if in.kind != referenceInput {
		f, err := checkpoint.OpenSet(in.Path, in.weights)
		if err != nil {
			return err
		}
		return f.Close()
	}
	if kind, err := images.KindOf(in.Path); err != nil || kind != images.NPZ {
		return err
	}
	f, err := npz.Open(in.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	if !f.Has("arr_0") && !(f.Has("mu") && f.Has("sigma")) {
		return fmt.Errorf("%s: holds %s; expected a reference batch with arr_0, or mu and sigma", in.Path, strings.Join(f.Names(), ", "))
	}
	return nil
}

// openNetwork opens a feature network as each of the rows does, and checks that it
// computes what their metrics need.
func (in *input) openNetwork(ctx context.Context) error {
	seen := map[string]bool{}
	for _, c := range in.comparisons {
		use := c.Key("") + " " + c.MetricNames()
		if seen[use] {
			continue
		}
		seen[use] = true
		x, err := c.Flags.Extractor(ctx, in.Path, models.Options{Weights: c.WeightSet})
		if err != nil {
			return err
		}
		err = c.CheckOutputs(x)
		x.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// describe is a paragraph about a file that has a problem.
func (in *input) describe(problem string) string {
	var out strings.Builder
	name := in.Path[strings.LastIndexByte(in.Path, '/')+1:]
	fmt.Fprintf(&out, "  %s  %s", name, in.kind)
	if in.source.Size != "" {
		fmt.Fprintf(&out, ", %s", in.source.Size)
	}
	fmt.Fprintf(&out, "\n    %s: %s (%s)\n", in.Path, problem, in.At)
	fmt.Fprintf(&out, "    needed by: %s\n", in.neededBy())
	if in.source.Page != "" {
		fmt.Fprintf(&out, "    published: %s\n", in.source.Page)
	}
	return out.String()
}

// neededBy names the rows, each label once: Cat scale=0, scale=0.05; Horse scale=0.
func (in *input) neededBy() string {
	var groups []string
	for i, r := range in.rows {
		if i > 0 && r.Label != "" && r.Label == in.rows[i-1].Label {
			groups[len(groups)-1] += ", " + store.Title("", r.Swept)
		} else {
			groups = append(groups, r.Title())
		}
	}
	return strings.Join(groups, "; ")
}

// The pages on which authors publish files.
const (
	checkpointsPage = "https://github.com/openai/guided-diffusion (README.md, \"Download pre-trained models\")"
	iddpmPage       = "https://github.com/openai/improved-diffusion (README.md, \"Models and Hyperparameters\")"
	ditPage         = "https://github.com/facebookresearch/DiT (README.md, download.py)"
	referencesPage  = "https://github.com/openai/guided-diffusion/tree/main/evaluations (README.md, \"Download batches\")"
	inceptionPage   = "https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights"
	edmPage         = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/ (github.com/NVlabs/edm, README.md, \"Pre-trained models\")"
	edmBaselinePage = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/baseline/ (github.com/NVlabs/edm, README.md, \"Pre-trained models\")"
	edmRefsPage     = "https://nvlabs-fi-cdn.nvidia.com/edm/fid-refs/ (github.com/NVlabs/edm, README.md, \"Calculating FID\")"
	edm2Page        = "https://nvlabs-fi-cdn.nvidia.com/edm2/posthoc-reconstructions/ (github.com/NVlabs/edm2, README.md, \"Using pre-trained models\")"
	sitPage         = "https://github.com/willisma/SiT (README.md, \"Pre-trained SiT checkpoints\")"
	clipPage        = "https://huggingface.co/openai (clip-vit-base-patch32, clip-vit-large-patch14, clip-vit-large-patch14-336), https://huggingface.co/laion"
	dinov2Page      = "https://github.com/facebookresearch/dinov2 (README.md, \"Pretrained models\")"
)

// PublishedFiles are the official files by name, with the pages on which their
// authors publish them. Sizes are those of float32 weights of the shapes that the
// flags ask for, of EDM2 float16 weights; a file has none where its authors state none and the shapes do not
// tell.
var PublishedFiles = map[string]Source{
	"64x64_classifier.pt":                     {Page: checkpointsPage},
	"64x64_diffusion.pt":                      {Page: checkpointsPage},
	"128x128_classifier.pt":                   {Page: checkpointsPage},
	"128x128_diffusion.pt":                    {Page: checkpointsPage},
	"256x256_classifier.pt":                   {Page: checkpointsPage},
	"256x256_diffusion.pt":                    {Page: checkpointsPage, Size: "about 2.2 GB"},
	"256x256_diffusion_uncond.pt":             {Page: checkpointsPage, Size: "about 2.2 GB"},
	"512x512_classifier.pt":                   {Page: checkpointsPage},
	"512x512_diffusion.pt":                    {Page: checkpointsPage},
	"64_256_upsampler.pt":                     {Page: checkpointsPage},
	"128_512_upsampler.pt":                    {Page: checkpointsPage},
	"lsun_bedroom.pt":                         {Page: checkpointsPage, Size: "about 2.2 GB"},
	"lsun_cat.pt":                             {Page: checkpointsPage, Size: "about 2.2 GB"},
	"lsun_horse.pt":                           {Page: checkpointsPage, Size: "about 2.2 GB"},
	"lsun_horse_nodropout.pt":                 {Page: checkpointsPage, Size: "about 2.2 GB"},
	"cifar10_uncond_50M_500K.pt":              {Page: iddpmPage, Size: "about 210 MB"},
	"cifar10_uncond_vlb_50M_500K.pt":          {Page: iddpmPage, Size: "about 210 MB"},
	"imagenet64_uncond_100M_1500K.pt":         {Page: iddpmPage, Size: "about 485 MB"},
	"imagenet64_uncond_vlb_100M_1500K.pt":     {Page: iddpmPage, Size: "about 485 MB"},
	"imagenet64_cond_270M_250K.pt":            {Page: iddpmPage, Size: "about 1.1 GB"},
	"lsun_uncond_100M_1200K_bs128.pt":         {Page: iddpmPage, Size: "about 455 MB"},
	"lsun_uncond_100M_2400K_bs64.pt":          {Page: iddpmPage, Size: "about 455 MB"},
	"DiT-XL-2-256x256.pt":                     {Page: ditPage, Size: "about 2.7 GB"},
	"DiT-XL-2-512x512.pt":                     {Page: ditPage, Size: "about 2.7 GB"},
	"SiT-XL-2-256.pt":                         {Page: sitPage, Size: "about 2.7 GB"},
	"edm-cifar10-32x32-cond-vp.pkl":           {Page: edmPage, Size: "about 225 MB"},
	"edm-cifar10-32x32-cond-ve.pkl":           {Page: edmPage, Size: "about 225 MB"},
	"edm-cifar10-32x32-uncond-vp.pkl":         {Page: edmPage, Size: "about 225 MB"},
	"edm-cifar10-32x32-uncond-ve.pkl":         {Page: edmPage, Size: "about 225 MB"},
	"edm-ffhq-64x64-uncond-vp.pkl":            {Page: edmPage},
	"edm-ffhq-64x64-uncond-ve.pkl":            {Page: edmPage},
	"edm-afhqv2-64x64-uncond-vp.pkl":          {Page: edmPage},
	"edm-afhqv2-64x64-uncond-ve.pkl":          {Page: edmPage},
	"edm-imagenet-64x64-cond-adm.pkl":         {Page: edmPage, Size: "about 1.2 GB"},
	"baseline-cifar10-32x32-uncond-vp.pkl":    {Page: edmBaselinePage},
	"baseline-cifar10-32x32-uncond-ve.pkl":    {Page: edmBaselinePage},
	"baseline-imagenet-64x64-cond-adm.pkl":    {Page: edmBaselinePage, Size: "about 1.2 GB"},
	"edm2-img512-l-1879048-0.015.pkl":         {Page: edm2Page, Size: "about 1.6 GB"},
	"edm2-img512-l-1879048-0.085.pkl":         {Page: edm2Page, Size: "about 1.6 GB"},
	"edm2-img512-m-0268435-0.155.pkl":         {Page: edm2Page, Size: "about 1.0 GB"},
	"edm2-img512-m-2147483-0.030.pkl":         {Page: edm2Page, Size: "about 1.0 GB"},
	"edm2-img512-m-2147483-0.100.pkl":         {Page: edm2Page, Size: "about 1.0 GB"},
	"edm2-img512-s-2147483-0.025.pkl":         {Page: edm2Page, Size: "about 560 MB"},
	"edm2-img512-s-2147483-0.070.pkl":         {Page: edm2Page, Size: "about 560 MB"},
	"edm2-img512-s-2147483-0.130.pkl":         {Page: edm2Page, Size: "about 560 MB"},
	"edm2-img512-s-uncond-2147483-0.070.pkl":  {Page: edm2Page, Size: "about 560 MB"},
	"edm2-img512-xl-1342177-0.020.pkl":        {Page: edm2Page, Size: "about 2.2 GB"},
	"edm2-img512-xl-1342177-0.085.pkl":        {Page: edm2Page, Size: "about 2.2 GB"},
	"edm2-img512-xs-0134217-0.125.pkl":        {Page: edm2Page, Size: "about 250 MB"},
	"edm2-img512-xs-2147483-0.045.pkl":        {Page: edm2Page, Size: "about 250 MB"},
	"edm2-img512-xs-2147483-0.135.pkl":        {Page: edm2Page, Size: "about 250 MB"},
	"edm2-img512-xs-uncond-0134217-0.110.pkl": {Page: edm2Page, Size: "about 250 MB"},
	"edm2-img512-xs-uncond-2147483-0.015.pkl": {Page: edm2Page, Size: "about 250 MB"},
	"edm2-img512-xs-uncond-2147483-0.020.pkl": {Page: edm2Page, Size: "about 250 MB"},
	"edm2-img512-xs-uncond-2147483-0.025.pkl": {Page: edm2Page, Size: "about 250 MB"},
	"edm2-img512-xs-uncond-2147483-0.030.pkl": {Page: edm2Page, Size: "about 250 MB"},
	"edm2-img512-xs-uncond-2147483-0.045.pkl": {Page: edm2Page, Size: "about 250 MB"},
	"edm2-img512-xxl-0939524-0.015.pkl":       {Page: edm2Page, Size: "about 3.0 GB"},
	"edm2-img512-xxl-0939524-0.070.pkl":       {Page: edm2Page, Size: "about 3.0 GB"},
	"edm2-img512-xxl-0939524-0.075.pkl":       {Page: edm2Page, Size: "about 3.0 GB"},
	"cifar10-32x32.npz":                       {Page: edmRefsPage},
	"imagenet-64x64.npz":                      {Page: edmRefsPage},
	"imagenet-64x64-baseline.npz":             {Page: edmRefsPage},
	"VIRTUAL_lsun_bedroom256.npz":             {Page: referencesPage},
	"VIRTUAL_lsun_cat256.npz":                 {Page: referencesPage},
	"VIRTUAL_lsun_horse256.npz":               {Page: referencesPage},
	"VIRTUAL_imagenet64_labeled.npz":          {Page: referencesPage},
	"VIRTUAL_imagenet128_labeled.npz":         {Page: referencesPage},
	"VIRTUAL_imagenet256_labeled.npz":         {Page: referencesPage},
	"VIRTUAL_imagenet512.npz":                 {Page: referencesPage},
	"pt_inception-2015-12-05-6726825d.pth":    {Page: inceptionPage, Size: "about 96 MB"},
	"clip-vit-large-patch14-336":              {Page: clipPage, Size: "about 1.7 GB"},
	"dinov2_vitl14_pretrain.pth":              {Page: dinov2Page, Size: "about 1.2 GB"},
}

// sourceOf says where a file comes from: what the experiment's sources say, or else
// PublishedFiles.
func (e *Settings) sourceOf(path string) Source {
	name := filepath.Base(path)
	if s, ok := e.Sources[name]; ok {
		return s
	}
	return PublishedFiles[name]
}
