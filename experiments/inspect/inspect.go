// Package inspect tells what a checkpoint holds: a file or a folder goes in;
// format, family, flags and tensors come out.
package inspect

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sagbench/experiments/human"
	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/families"
	"sagbench/sampling/tensor"
)

// Files prints to w what the checkpoints at paths hold: files, or folders of
// diffusers. asJSON prints a JSON object for each instead of text; all lists every
// tensor. A folder that no family knows is an error, when the others are printed.
func Files(w io.Writer, paths []string, asJSON, all bool) error {
	var empty []error
	for i, path := range paths {
		if i > 0 && !asJSON {
			fmt.Fprintln(w)
		}
		var in interface{ print(io.Writer) }
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return fmt.Errorf("inspect: %w", err)
		case info.IsDir():
			var folder folderInspection
			if folder, err = inspectFolder(path, all); len(folder.Guesses) == 0 {
				empty = append(empty, fmt.Errorf("inspect: %s: holds no model of a family that is known (%s); name a checkpoint file in it, or a folder of diffusers with its model_index.json or config.json", path, familyNames()))
			}
			in = folder
		default:
			in, err = inspectFile(path, all)
		}
		if err != nil {
			return err
		}
		if asJSON {
			e := json.NewEncoder(w)
			e.SetIndent("", "  ")
			if err := e.Encode(in); err != nil {
				return err
			}
			continue
		}
		in.print(w)
	}
	return errors.Join(empty...)
}

// familyNames lists the families.
func familyNames() string { return strings.Join(slices.Sorted(maps.Keys(families.Table)), ", ") }

// A fileInspection is what inspect tells of a file.
type fileInspection struct {
	File       string            `json:"file"`
	Format     string            `json:"format"`
	Wrapper    string            `json:"wrapper,omitempty"` // the key that the weights lie under
	Others     []string          `json:"others,omitempty"`  // other sets of weights, for the key weights of a model block
	Unnamed    []string          `json:"unnamed,omitempty"` // averages that cannot be used
	Prefix     string            `json:"prefix,omitempty"`  // what every key began with: "module."
	Objects    map[string]string `json:"objects,omitempty"` // of a pickle of objects: entry → class
	SHA256     string            `json:"sha256"`
	Tensors    int               `json:"tensors"`
	Parameters int               `json:"parameters"`
	DTypes     map[string]int    `json:"dtypes"` // element type → number of tensors
	Guesses    []models.Guess    `json:"guesses"`
	Foreign    string            `json:"foreign,omitempty"` // what it is where no family here is it
	Shapes     map[string]string `json:"shapes,omitempty"`
}

func inspectFile(path string, all bool) (in fileInspection, err error) {
	f, err := checkpoint.Open(path)
	if err != nil {
		return in, err
	}
	defer f.Close()
	in = fileInspection{File: path, Format: f.Format, Wrapper: f.Wrapper, Others: f.Others, Unnamed: f.Unnamed, Prefix: f.Prefix, Tensors: len(f.Tensors), DTypes: map[string]int{}}
	if in.SHA256, err = f.SHA256(); err != nil {
		return in, err
	}
	for name, o := range f.Objects {
		if in.Objects == nil {
			in.Objects = map[string]string{}
		}
		in.Objects[name] = o.Class
	}
	for _, t := range f.Tensors {
		in.Parameters += tensor.Size(t.Shape)
		in.DTypes[string(t.DType)]++
	}
	if in.Foreign = models.Foreign(f.Tensors); in.Foreign == "" {
		in.Guesses = families.Guess(f)
	}
	if all {
		in.Shapes = map[string]string{}
		for k, t := range f.Tensors {
			in.Shapes[k] = fmt.Sprintf("%s %v", t.DType, t.Shape)
		}
	}
	return in, nil
}

func (in fileInspection) print(w io.Writer) {
	fmt.Fprintf(w, "%s\n  format      %s", in.File, in.Format)
	if in.Wrapper != "" {
		fmt.Fprintf(w, ", weights under %q", in.Wrapper)
	}
	if len(in.Others) > 0 {
		fmt.Fprintf(w, "; other sets, for weights: in the model block: %s", strings.Join(in.Others, ", "))
	}
	if len(in.Unnamed) > 0 {
		fmt.Fprintf(w, "; not usable, since its tensors have no names: %s", strings.Join(in.Unnamed, ", "))
	}
	if in.Prefix != "" {
		fmt.Fprintf(w, ", keys without their %q", in.Prefix)
	}
	fmt.Fprintf(w, "\n  sha256      %s\n  tensors     %d of %s\n  parameters  %s\n",
		in.SHA256, in.Tensors, in.types(), human.Count(in.Parameters))
	if len(in.Objects) > 1 {
		fmt.Fprintf(w, "  objects     %s\n", in.objects())
	}
	if in.Foreign != "" {
		fmt.Fprintf(w, "  family      none: %s\n", in.Foreign)
	} else {
		printGuesses(w, in.File, in.Guesses)
	}
	in.printShapes(w)
}

// types are the element types with the number of tensors of each.
func (in fileInspection) types() string {
	var types []string
	for _, t := range slices.Sorted(maps.Keys(in.DTypes)) {
		types = append(types, fmt.Sprintf("%s (%d)", t, in.DTypes[t]))
	}
	return strings.Join(types, ", ")
}

// objects are the objects with their classes.
func (in fileInspection) objects() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(in.Objects)) {
		all = append(all, fmt.Sprintf("%s (%s)", name, in.Objects[name]))
	}
	text := strings.Join(all, ", ")
	if _, training := in.Objects["loss_fn"]; training {
		text += ": a snapshot that training saved"
	}
	return text
}

// printShapes lists the tensors, where all are wanted.
func (in fileInspection) printShapes(w io.Writer) {
	for _, k := range slices.Sorted(maps.Keys(in.Shapes)) {
		fmt.Fprintf(w, "  %-60s %s\n", k, in.Shapes[k])
	}
}

// printGuesses prints the block of an experiment for each guess, with its evidence
// and its attention layers.
func printGuesses(w io.Writer, path string, guesses []models.Guess) {
	if len(guesses) == 0 {
		fmt.Fprintf(w, "  family      none of %s: it speaks for none of them\n", familyNames())
	}
	for i, g := range guesses {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "  family      %s: %s\n", g.Family, g.Evidence)
		for _, m := range g.Mismatches {
			fmt.Fprintf(w, "    but       %s\n", m)
		}
		printAttention(w, g.Attention)
		if names := assumed(g.Flags); names != nil {
			fmt.Fprintf(w, "  assumed     %s: not in the file, as the authors' own networks have them; compare them with the README of the file\n", strings.Join(names, ", "))
		}
		fmt.Fprintln(w)
		printBlock(w, path, g)
	}
}

// assumed are the names of the flags that the file does not tell.
func assumed(flags []models.Flag) (names []string) {
	for _, f := range flags {
		if strings.HasPrefix(f.Note, models.Assumed) {
			names = append(names, f.Name)
		}
	}
	return names
}

// printAttention lists attention layers, those of one size and number of heads in
// a line.
func printAttention(w io.Writer, layers []models.Layer) {
	named := map[models.Layer][]string{}
	var kinds []models.Layer
	for _, l := range layers {
		kind := models.Layer{Heads: l.Heads, Height: l.Height, Width: l.Width}
		if named[kind] == nil {
			kinds = append(kinds, kind)
		}
		named[kind] = append(named[kind], l.Name)
	}
	for _, k := range kinds {
		fmt.Fprintf(w, "  attention   %d×%d, heads %d: %s\n", k.Height, k.Width, k.Heads, strings.Join(named[k], ", "))
	}
}

// plainPath is a path that YAML takes without quotes.
var plainPath = regexp.MustCompile(`^[A-Za-z0-9_./][A-Za-z0-9_./+@=-]*$`)

// printBlock prints the block as an experiment has it.
func printBlock(w io.Writer, path string, g models.Guess) {
	indent := ""
	for _, key := range strings.Split(g.Block, ".") {
		fmt.Fprintf(w, "%s%s:\n", indent, key)
		indent += "  "
	}
	if g.Block != g.Family { // a feature network's block is named like the family
		fmt.Fprintf(w, "%sfamily: %s\n", indent, g.Family)
	}
	if !plainPath.MatchString(path) {
		path = strconv.Quote(path)
	}
	fmt.Fprintf(w, "%scheckpoint: %s\n", indent, path)
	for _, flag := range g.Flags {
		line := fmt.Sprintf("%s%s: %s", indent, flag.Name, flag.Value)
		if flag.Note != "" {
			line += "  # " + flag.Note
		}
		fmt.Fprintln(w, line)
	}
	for _, need := range g.Needs {
		fmt.Fprintf(w, "%s# %s\n", indent, need)
	}
}

// A folderInspection is what inspect tells of a folder.
type folderInspection struct {
	Folder  string           `json:"folder"`
	Files   []fileInspection `json:"files"` // of the weights that the network is made of
	Guesses []models.Guess   `json:"guesses"`
}

func inspectFolder(path string, all bool) (folderInspection, error) {
	in := folderInspection{Folder: path}
	var files []string
	in.Guesses, files = families.GuessFolder(path)
	for _, f := range files {
		switch filepath.Ext(f) {
		case ".safetensors", ".bin":
			one, err := inspectFile(f, all)
			if err != nil {
				return in, err
			}
			one.Guesses = nil // the folder's say more
			in.Files = append(in.Files, one)
		}
	}
	return in, nil
}

func (in folderInspection) print(w io.Writer) {
	fmt.Fprintf(w, "%s, a folder\n", in.Folder)
	for _, f := range in.Files {
		name, err := filepath.Rel(in.Folder, f.File)
		if err != nil {
			name = f.File
		}
		fmt.Fprintf(w, "  %s\n    format      %s\n    sha256      %s\n    tensors     %d of %s\n    parameters  %s\n",
			name, f.Format, f.SHA256, f.Tensors, f.types(), human.Count(f.Parameters))
		f.printShapes(w)
	}
	printGuesses(w, in.Folder, in.Guesses)
}
