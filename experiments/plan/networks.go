package plan

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"sagbench/configs"
	"sagbench/experiments/store"
	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/families"
	"sagbench/models/ort"
	"sagbench/sampling"
)

var (
	variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)
	atLine   = regexp.MustCompile(`:[0-9]+$`)
)

// fileAt is the file that a block names at a dotted path.
func fileAt(b configs.Block, path string) sampling.File {
	found, _ := b.At(path)
	return FileOf(found)
}

// FileOf is the file that a block names. ${NAME} stands for an environment
// variable. A path is relative to the folder of the YAML file that names it if
// there is such a file, or else to the working directory.
func FileOf(b configs.Block) sampling.File {
	written, _ := b.Text()
	p := sampling.File{Place: PlaceOf(b), Written: written}
	p.Path = variable.ReplaceAllStringFunc(written, func(v string) string {
		name := variable.FindStringSubmatch(v)[1]
		if value := os.Getenv(name); value != "" {
			return value
		}
		p.Unset = append(p.Unset, name)
		return v
	})
	if filepath.IsAbs(p.Path) || p.Path == "" {
		return p
	}
	if file := atLine.ReplaceAllString(p.At, ""); file != p.At {
		if beside := filepath.Join(filepath.Dir(file), p.Path); store.Exists(beside) {
			p.Path = beside
		}
	}
	return p
}

// unset tells which environment variables of a file's path are not set, and what
// to do; "" where all are.
func unset(f sampling.File) string {
	var hints []string
	for _, name := range f.Unset {
		hints = append(hints, fmt.Sprintf("%s is not set; name the folder with %[1]s=DIR", name))
	}
	return strings.Join(hints, "; ")
}

// PlaceOf is where a block stands, for messages.
func PlaceOf(b configs.Block) sampling.Place {
	return sampling.Place{At: b.Position(), Key: b.Path()}
}

// A NetworkRef is a network that a setting names; its Flags are a models.Family.
type NetworkRef struct {
	sampling.Ref
	set      string   // of the weights, where it is not the one that lies nearest in the file; known once a run is identified
	partSets []string // the same of the parts, where one of them has such a set
}

// Hooks decode the settings that name files and networks; find tells which file a
// block names, as FileOf does.
func Hooks(find func(configs.Block) sampling.File) configs.Hooks {
	return configs.Hooks{
		reflect.TypeFor[sampling.File](): func(b configs.Block, v reflect.Value) error {
			var text string
			if err := b.Decode(&text); err != nil {
				return err
			}
			v.Set(reflect.ValueOf(find(b)))
			return nil
		},
		reflect.TypeFor[sampling.Ref](): func(b configs.Block, v reflect.Value) error {
			return decodeRef(b, v.Addr().Interface().(*sampling.Ref))
		},
	}
}

// decodeRef reads a model block, {family: adm, checkpoint: FILE, <the family's
// flags>}, strictly, or a path alone where the family is known.
func decodeRef(b configs.Block, r *sampling.Ref) (err error) {
	r.Place = PlaceOf(b)
	if r.Written, err = configs.Canonical(b); err != nil {
		return err
	}
	if _, alone := b.Text(); alone && r.Family != "" {
		r.Flags = families.Table[r.Family]()
		return b.Decode(&r.Checkpoint)
	}
	head := struct {
		Family     string         `yaml:"family"`
		Checkpoint *sampling.File `yaml:"checkpoint"`
		Weights    *string        `yaml:"weights"`
		Precision  *string        `yaml:"precision"`
	}{Checkpoint: &r.Checkpoint, Weights: &r.Weights, Precision: &r.Precision}
	if err := b.Only(headKeys...).Decode(&head); err != nil {
		return err
	}
	family, known := families.Table[head.Family]
	switch {
	case head.Family == "":
		return b.Errorf("family is missing; known: %v", FamilyRegistry.Names())
	case !known:
		at, _ := b.At("family")
		return at.Errorf("unknown family %q; known: %v", head.Family, FamilyRegistry.Names())
	case r.Checkpoint.IsZero():
		return b.Errorf("checkpoint is missing: the path of the file as its authors publish it")
	case r.Precision != "" && !slices.Contains(ort.AllPrecisions, r.Precision):
		at, _ := b.At("precision")
		return at.Errorf("precision is %q, expected %s", r.Precision, strings.Join(ort.AllPrecisions, ", "))
	}
	r.Family, r.Flags = head.Family, family()
	if err := b.Without(headKeys...).Decode(r.Flags); err != nil {
		return err
	}
	if f, ok := r.Flags.(models.WithPrecision); ok {
		r.Precision = cmp.Or(r.Precision, f.Precision())
	}
	return readFlags(b, r)
}

// readFlags sets the flags that the checkpoint says. One that is not there, or is no
// checkpoint, is told of with the other files.
func readFlags(b configs.Block, r *sampling.Ref) error {
	f, ok := r.Flags.(models.SelfDescribing)
	if !ok || !store.Exists(r.Checkpoint.Path) {
		return nil
	}
	file, err := checkpoint.OpenSet(r.Checkpoint.Path, r.Weights)
	if err != nil {
		return nil
	}
	defer file.Close()
	if err := f.ReadFlags(file); err != nil {
		return b.Errorf("%w", err)
	}
	return nil
}

// headKeys are the keys of a model block beside the family's flags.
var headKeys = []string{"family", "checkpoint", "weights", "precision"}

// DecodeNetwork reads a model block, {family: adm, checkpoint: FILE, <the family's
// flags>}. Every fault is in the error, with its line.
func DecodeNetwork(b configs.Block) (n NetworkRef, err error) {
	return n, decodeRef(b, &n.Ref)
}

// parts are the further files that the flags name.
func (n *NetworkRef) parts() []models.Part {
	if c, ok := n.Flags.(models.Composite); ok {
		return c.Parts()
	}
	return nil
}

// Key tells networks apart that are open: two with equal keys compute the same.
// content is the hash of the checkpoint.
func (n *NetworkRef) Key(content string, opt models.Options) (string, error) {
	flags, err := configs.Canonical(n.Flags)
	return fmt.Sprintf("%s %s %s %s %s %v %v", n.Family, content, n.Weights, n.Precision, flags, opt.Taps, opt.Perturbations), err
}

// settings are the flags by their names, defaults included, with the family and
// the checkpoint as it was written.
func (n *NetworkRef) settings() (map[string]any, error) {
	flags, err := Fields(n.Flags)
	all := map[string]any{}
	for name, value := range flags {
		all[name] = value
	}
	all["family"], all["checkpoint"] = n.Family, n.Checkpoint.Written
	if n.Weights != "" {
		all["weights"] = n.Weights
	}
	if n.Precision != "" {
		all["precision"] = n.Precision
	}
	return all, err
}

// findSets fills in set and partSets.
func (n *NetworkRef) findSets() {
	n.set = chosenSet(n.Checkpoint.Path, n.Weights)
	var sets []string
	for _, p := range n.parts() {
		sets = append(sets, chosenSet(p.Path, p.Weights))
	}
	if strings.Join(sets, "") != "" {
		n.partSets = sets
	}
}

// chosenSet names the set of weights of a checkpoint that is used, "" where it is the
// one that lies nearest. A file that cannot be read is found wrong when the network is
// opened.
func chosenSet(path, weights string) (set string) {
	f, err := checkpoint.OpenSet(path, weights)
	if err != nil {
		return ""
	}
	defer f.Close()
	if f.Chosen {
		set = cmp.Or(f.Wrapper, ".")
	}
	return set
}

// effective are the flags that change what the network computes.
func (n *NetworkRef) effective() (map[string]json.RawMessage, error) {
	flags, err := settled(n.Flags)
	if err == nil && n.set != "" {
		flags["weights"], err = configs.Canonical(n.set)
	}
	if p := n.half(); err == nil && p != "" {
		flags["precision"], err = configs.Canonical(p)
	}
	if err == nil && n.partSets != nil {
		flags["weights of parts"], err = configs.Canonical(n.partSets)
	}
	delete(flags, "timestep_respacing") // it is the schedule's
	if f, ok := n.Flags.(models.WithIdleFlags); ok {
		for _, name := range f.IdleFlags() {
			delete(flags, name)
		}
	}
	return flags, err
}

// contents are the hashes of the row's networks.
func (r *Row) contents(h store.Hashes) ([]string, error) {
	var all []string
	for _, n := range r.Networks() {
		sum, err := n.hash(h)
		if err != nil {
			return nil, err
		}
		all = append(all, sum)
	}
	return all, nil
}

func (n *NetworkRef) hash(h store.Hashes) (string, error) {
	return hashFiles(n.Flags.(models.Family), n.Checkpoint.Path, h)
}

// hashFiles is the sha256 of the file that a network at path is made of or, of
// several files, that of a line for each with its hash.
func hashFiles(f models.Family, path string, h store.Hashes) (string, error) {
	files, err := models.Files(f, path)
	if err != nil {
		return "", err
	}
	if len(files) == 1 {
		return h.Of(files[0])
	}
	all := sha256.New()
	for _, path := range files {
		sum, err := h.Of(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(all, sum)
	}
	return fmt.Sprintf("%x", all.Sum(nil)), nil
}

// An Attachment is the network that a guidance of the row has of its own.
type Attachment struct {
	NetworkRef
	Name     string // of the guidance
	guidance sampling.Networked
}

// Networks are the networks of the row: the one that draws, then those of the
// guidances, in the order of Attachments.
func (r *Row) Networks() []NetworkRef {
	all := []NetworkRef{r.Model}
	for _, a := range r.Attachments {
		all = append(all, a.NetworkRef)
	}
	return all
}

// Fit checks that the networks of the guidances, opened, fit the generator, and
// hands them to the guidances. It returns the number of classes that images are
// drawn with: the generator's, or that of a guidance's network where the generator
// knows none; 0 where images have no labels.
func (r *Row) Fit(ctx context.Context, g models.Generator, attached []any) (classes int, err error) {
	for i, a := range attached {
		if err := r.checkAttachment(i, g, a); err != nil {
			return 0, err
		}
	}
	if err := r.attach(ctx, attached); err != nil {
		return 0, err
	}
	classes = g.Classes()
	for i, a := range attached {
		labelled, ok := a.(interface{ Classes() int })
		if !ok || labelled.Classes() == 0 || labelled.Classes() == classes {
			continue
		}
		if classes > 0 {
			return 0, r.Attachments[i].guidance.Network().Errorf("this network knows %d classes, the others of the row %d: an image has one label", labelled.Classes(), classes)
		}
		classes = labelled.Classes()
	}
	return classes, nil
}

// attach hands the guidances their networks, in the order of Attachments.
func (r *Row) attach(ctx context.Context, networks []any) error {
	if len(networks) != len(r.Attachments) {
		return fmt.Errorf("row %q: %d networks for the guidances, which need %d", r.Title(), len(networks), len(r.Attachments))
	}
	var faults []error
	for i, a := range r.Attachments {
		if err := a.guidance.Attach(ctx, networks[i]); err != nil {
			faults = append(faults, a.guidance.Network().Errorf("%w", err))
		}
	}
	return configs.Join(faults...)
}

// checkAttachment is an error unless the network of attachment i takes what the
// generator draws. A network that draws as well must have the same diffusion
// process, since guidances compare the predictions of the two.
func (r *Row) checkAttachment(i int, g models.Generator, attached any) error {
	at := r.Attachments[i].guidance.Network()
	if a, ok := attached.(interface{ SampleShape() []int }); ok && !slices.Equal(g.SampleShape(), a.SampleShape()) {
		return at.Errorf("this network is one of images or latents of %v, that of the row of %v; expected the same", a.SampleShape(), g.SampleShape())
	}
	a, ok := attached.(models.Generator)
	if !ok {
		return nil
	}
	ours, theirs := g.Process(), a.Process()
	if ours.Predicts != theirs.Predicts {
		return at.Errorf("this network predicts %s, that of the row %s; expected the same", theirs.Predicts, ours.Predicts)
	}
	s, err := r.Sampler.Value.Schedule(ours.Schedule)
	other, errOther := r.Sampler.Value.Schedule(theirs.Schedule)
	if err := errors.Join(err, errOther); err != nil {
		return at.Errorf("%w", err)
	}
	for k := range s.Len() {
		if k >= other.Len() || s.Timestep(k) != other.Timestep(k) || s.AlphaBar(k) != other.AlphaBar(k) {
			return at.Errorf("this network belongs to another diffusion process than that of the row (they part at step %d); diffusion_steps, noise_schedule and rescale_timesteps have to be the same", k)
		}
	}
	return nil
}
