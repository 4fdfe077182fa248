package plan

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"sagbench/configs"
	"sagbench/models"
	"sagbench/sampling"
)

// Prompting is what the images of a network that is conditioned on text are
// drawn from.
type Prompting struct {
	PromptList   []string    `yaml:"prompts" doc:"list of texts, of a family that is conditioned on text: image i is drawn from text i mod n of the n, counted from 0"`
	PromptsFile  string      `yaml:"prompts_file" doc:"in place of prompts, a file: of one text a line, where blank lines, and spaces around a text, do not count; FILE.jsonl, an object a line, {\"prompt\": …, \"negative_prompt\": …, \"file_name\": …}, of which the last two may be absent; FILE.json, captions as COCO has them (captions_val2014.json), from which prompts_draw draws"`
	PromptsDraw  PromptsDraw `yaml:"prompts_draw" doc:"draws the prompts from prompts_file, without replacement: of COCO's captions images, and of each of these one caption, all at random; of other files lines"`
	NegativeList []string    `yaml:"negative_prompts" doc:"in place of negative_prompt: a list of as many texts as there are prompts, one for each; an empty one = what the model has for an empty negative_prompt"`
	NegativeFile string      `yaml:"negative_prompts_file" doc:"in place of negative_prompts: a file with one text a line, for each prompt its own; blank lines count, as empty ones"`

	NegativePrompt string `yaml:"negative_prompt" doc:"what stands for ∅ in classifier-free guidance; empty = what the model's flags say, or else the empty prompt. With a FILE.jsonl it is that of the lines that have none of their own"`
}

// PromptsDraw is a draw of prompts from a file; the zero value draws none from files
// of lines, and cocoDraw pairs from COCO's captions.
type PromptsDraw struct {
	Number int    `yaml:"number" min:"0" max:"10000000" doc:"prompts that are drawn; 0 = 30,000 of COCO's captions, all lines of other files, in their order. The first of more are those of fewer"`
	Seed   uint64 `yaml:"seed" min:"0" max:"18446744073709551615" doc:"of the draw, which is a function of it and of the file's content"`
}

// cocoDraw is how many pairs of images and captions the zero-shot FID of text-to-image
// models on COCO takes, "FID-30K" (Saharia et al. 2022, arXiv:2205.11487): of images of
// val2014, each with one of its captions at random (j-min/DallEval, quality/README.md,
// whose uid_caption.csv is such a draw). Others draw 30,000 of all captions, of which
// several may be of one image: drboog/Lafite, issue 24.
const cocoDraw = 30_000

// Drawn tells of a draw of prompts; the zero value: there was none.
type Drawn struct {
	File   string // its name
	SHA256 string // of its content
	From   string // what it was drawn from: 40,504 images of COCO, 1,632 lines
	Seed   uint64
}

// A promptCache keeps the files of prompts that were read, by path: the rows of a
// sweep have the same one.
type promptCache map[string]*promptFile

func (c promptCache) read(f sampling.File) (*promptFile, error) {
	if known, ok := c[f.Path]; ok {
		return known, nil
	}
	p, err := readPromptsFile(f)
	if err == nil {
		c[f.Path] = p
	}
	return p, err
}

// readPrompts checks the row's texts against its family, and reads their files.
func (r *Row) readPrompts(b configs.Block, files promptCache) error {
	f, ok := r.Model.Flags.(models.Captioned)
	if !ok || !f.TakesPrompts() {
		return r.refusePrompts(b)
	}
	list, _ := b.At("prompts")
	file, _ := b.At("prompts_file")
	draw, _ := b.At("prompts_draw")
	if r.PromptsFile == "" && r.PromptsDraw != (PromptsDraw{}) {
		return draw.Errorf("draws from prompts_file, and there is none")
	}
	r.Prompts = r.PromptList
	var own []*string // negative prompts of the file's lines
	switch {
	case len(r.PromptList) > 0 && r.PromptsFile != "":
		return file.Errorf("prompts are given as well, at %s; give one of the two (prompts=[] or prompts_file=null takes the other away)", list.Position())
	case r.PromptsFile != "":
		r.promptsFile = FileOf(file)
		read, err := files.read(r.promptsFile)
		if err != nil {
			return r.explainPrompts(file, r.promptsFile, err)
		}
		drawn, err := read.draw(r.PromptsDraw)
		if err != nil {
			return draw.Errorf("%w", err)
		}
		r.Prompts, r.FileNames, own = drawn.texts, drawn.names, drawn.negative
		r.Drawn, r.PromptNotes = drawn.of, read.notes
	case len(r.PromptList) == 0:
		return r.ModelBlock.Errorf("family %s is conditioned on text: give prompts: a list of texts, or prompts_file: a file with one a line", r.Model.Family)
	}
	return r.readNegatives(b, f, own)
}

// explainPrompts is an error in reading a file of prompts, with the page where it is
// published.
func (r *Row) explainPrompts(at configs.Block, f sampling.File, err error) error {
	if page := r.sourceOf(f.Path).Page; errors.Is(err, fs.ErrNotExist) && page != "" {
		return at.Errorf("%w; published: %s", err, page)
	}
	return at.Errorf("%w", err)
}

// readNegatives settles what stands for ∅ of each prompt: own are the negative prompts
// of the file's lines, nil where it has none.
func (r *Row) readNegatives(b configs.Block, f models.Captioned, own []*string) error {
	one, _ := b.At("negative_prompt")
	list, _ := b.At("negative_prompts")
	file, _ := b.At("negative_prompts_file")
	several := []string{}
	for _, s := range []struct {
		is   bool
		name string
	}{
		{own != nil, "negative_prompt in " + filepath.Base(r.promptsFile.Path)}, {len(r.NegativeList) > 0, "negative_prompts"},
		{r.NegativeFile != "", "negative_prompts_file"}, {r.NegativePrompt != "", "negative_prompt"},
	} {
		if s.is {
			several = append(several, s.name)
		}
	}
	at := b
	for _, candidate := range []configs.Block{one, list, file} { // the last one that is there
		if !candidate.IsZero() {
			at = candidate
		}
	}
	switch {
	case len(several) > 0 && f.Negative() != "":
		return at.Errorf("the model block gives a negative_prompt as well; give one of them")
	case len(several) > 1 && !(len(several) == 2 && own != nil && r.NegativePrompt != ""):
		return at.Errorf("%s are given; give one of them", strings.Join(several, " and "))
	}
	switch {
	case own != nil:
		for _, text := range own {
			if text == nil {
				text = &r.NegativePrompt
			}
			r.Negatives = append(r.Negatives, *text)
		}
		return nil
	case len(r.NegativeList) > 0:
		at, r.Negatives = list, r.NegativeList
	case r.NegativeFile != "":
		var err error
		r.negativeFile = FileOf(file)
		if r.Negatives, err = readNegativesFile(r.negativeFile); err != nil {
			return r.explainPrompts(file, r.negativeFile, err)
		}
		at = file
	default:
		return nil
	}
	if r.Drawn != (Drawn{}) {
		return at.Errorf("holds a text for each prompt, and prompts_draw draws some: give FILE.jsonl with a negative_prompt in each line")
	}
	if len(r.Negatives) != len(r.Prompts) {
		return at.Errorf("has %d negative prompts for %d prompts; expected one for each", len(r.Negatives), len(r.Prompts))
	}
	return nil
}

// refusePrompts is an error if there are texts, for a family that takes none.
func (r *Row) refusePrompts(b configs.Block) error {
	var faults []error
	for _, s := range []struct {
		is  bool
		key string
	}{
		{len(r.PromptList) > 0, "prompts"}, {r.PromptsFile != "", "prompts_file"}, {r.PromptsDraw != (PromptsDraw{}), "prompts_draw"},
		{len(r.NegativeList) > 0, "negative_prompts"}, {r.NegativeFile != "", "negative_prompts_file"}, {r.NegativePrompt != "", "negative_prompt"},
	} {
		if s.is {
			at, _ := b.At(s.key)
			faults = append(faults, at.Errorf("family %s is not conditioned on text; remove it", r.Model.Family))
		}
	}
	return configs.Join(faults...)
}

// PromptOf is the text that image i is drawn from; "" where images are drawn from none.
func (r *Row) PromptOf(i int) string { return cyclic(r.Prompts, i) }

// NegativeOf is the row's text that stands for ∅ for image i; "" for what the model has.
func (r *Row) NegativeOf(i int) string {
	if len(r.Negatives) > 0 {
		return cyclic(r.Negatives, i)
	}
	return r.NegativePrompt
}

// FileNameOf is the name that the file of prompts gives image i, as COCO's image of its
// caption; "" where there is none.
func (r *Row) FileNameOf(i int) string { return cyclic(r.FileNames, i) }

// cyclic is text i mod n of the n; "" of none.
func cyclic(texts []string, i int) string {
	if len(texts) == 0 {
		return ""
	}
	return texts[i%len(texts)]
}

// negativeTexts are the different negative prompts of the row that are not empty.
func (r *Row) negativeTexts() []string {
	all := append([]string{r.NegativePrompt}, r.Negatives...)
	if len(r.Negatives) > 0 {
		all = r.Negatives
	}
	all = slices.Compact(slices.Sorted(slices.Values(all)))
	return slices.DeleteFunc(all, func(t string) bool { return t == "" })
}

// NegativeTexts are the different texts that stand for ∅ in the row, the model's own
// included where it is given; none where it is the empty prompt.
func (r *Row) NegativeTexts() []string {
	all := r.negativeTexts()
	if c, ok := r.Model.Flags.(models.Captioned); ok && c.Negative() != "" && !slices.Contains(all, c.Negative()) {
		all = append(all, c.Negative())
	}
	return all
}

// identifyPrompts adds to the settings that a run id is a hash of what the images are
// drawn from. Where prompts come from does not count, but what is drawn from a file
// does, and the names in it: they are kept with the images.
func (r *Row) identifyPrompts(all map[string]any) {
	if len(r.Prompts) == 0 { // ids of rows without are older than prompts
		return
	}
	all["prompts"], all["negative_prompt"] = r.Prompts, r.NegativePrompt
	if len(r.Negatives) > 0 {
		if one := r.Negatives[0]; !slices.ContainsFunc(r.Negatives, func(t string) bool { return t != one }) {
			all["negative_prompt"] = one
		} else {
			all["negative_prompt"], all["negative_prompts"] = "", r.Negatives
		}
	}
	if len(r.FileNames) > 0 {
		all["file_names"] = r.FileNames
	}
	if r.Drawn != (Drawn{}) {
		all["prompts_draw"] = map[string]any{"sha256": r.Drawn.SHA256, "seed": r.Drawn.Seed}
	}
}

// configPrompts adds the settings of the prompts to those of the row.
func (r *Row) configPrompts(all map[string]any) {
	if len(r.Prompts) == 0 {
		return
	}
	all["prompts"], all["prompts_file"], all["negative_prompt"] = r.PromptList, r.PromptsFile, r.NegativePrompt
	if r.Drawn != (Drawn{}) {
		all["prompts_draw"] = PromptsDraw{Number: len(r.Prompts), Seed: r.Drawn.Seed}
	}
	if len(r.NegativeList) > 0 {
		all["negative_prompts"] = r.NegativeList
	}
	if r.NegativeFile != "" {
		all["negative_prompts_file"] = r.NegativeFile
	}
}

// DescribeDraw tells what the prompts were drawn from; "" where they were not drawn.
func (r *Row) DescribeDraw() string {
	if r.Drawn == (Drawn{}) {
		return ""
	}
	text := fmt.Sprintf("prompts: %d drawn from %s in %s (sha256 %.12s…) with seed %d", len(r.Prompts), r.Drawn.From, r.Drawn.File, r.Drawn.SHA256, r.Drawn.Seed)
	switch n := len(r.Prompts); {
	case r.Most() < n:
		text += fmt.Sprintf("; the %d images take the first %[1]d of them", r.Most())
	case r.Most() > n:
		text += fmt.Sprintf("; the %d images take each more than once", r.Most())
		if r.Most() < 2*n {
			text = fmt.Sprintf("%s (the last %d once)", text, 2*n-r.Most())
		}
	}
	return text
}
