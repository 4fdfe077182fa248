package run

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/models"
)

// Pictures say where images are written to as PNG files, one an image; the zero value,
// nowhere.
type Pictures struct {
	Folder string
	// ByFile calls a file as the file of prompts calls its image, and not by its number.
	ByFile bool
}

// check is a misuse where pictures cannot be written to their folder.
func (p Pictures) check() error {
	if p.Folder == "" {
		return nil
	}
	if info, err := os.Stat(p.Folder); err == nil && !info.IsDir() {
		return human.Misusef("--png: %s is a file, expected a folder", p.Folder)
	}
	return nil
}

// checkPictures checks the names of all pictures before anything is drawn.
func (s *session) checkPictures() error {
	if err := s.Pictures.check(); err != nil || s.Pictures.Folder == "" {
		return err
	}
	for _, r := range s.runs {
		if _, err := s.pictureNames(r); err != nil {
			return human.Misuse{Err: err}
		}
	}
	return nil
}

// pictureNames are the names of the files of a row's images.
func (s *session) pictureNames(r *plan.Run) ([]string, error) {
	if !s.Pictures.ByFile {
		return numberedNames(r.Samples), nil
	}
	if r.FileNames == nil {
		return nil, fmt.Errorf("--names file: row %q: its prompts have no file names, which COCO's captions and a file_name in each line of FILE.jsonl give; --names index names files by the numbers of the images", r.Title())
	}
	names, seen := make([]string, r.Samples), make(map[string]int, r.Samples)
	for i := range names {
		name := r.FileNameOf(i)
		name = name[strings.LastIndexAny(name, `/\`)+1:]
		name = strings.TrimSuffix(name, filepath.Ext(name))
		if round := i / len(r.FileNames); round > 0 {
			name = fmt.Sprintf("%s-%d", name, round)
		}
		names[i] = name + ".png"
		if first, twice := seen[names[i]]; twice {
			return nil, fmt.Errorf("--names file: row %q: images %d and %d would both be called %s; --names index names files by the numbers of the images", r.Title(), first, i, names[i])
		}
		seen[names[i]] = i
	}
	return names, nil
}

// numberedNames are 000000.png and so on.
func numberedNames(n int) []string {
	digits := max(6, len(fmt.Sprint(n-1))) // so that they sort by number
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%0*d.png", digits, i)
	}
	return names
}

// pictures writes the images of all rows as PNG files: of one row into the folder, of
// several into folders below it that are called as those of the results.
func (s *session) pictures(ctx context.Context) error {
	if s.Pictures.Folder == "" {
		return nil
	}
	for _, r := range s.runs {
		folder := s.Pictures.Folder
		if len(s.runs) > 1 {
			folder = filepath.Join(folder, filepath.Base(r.Folder))
		}
		names, err := s.pictureNames(r)
		if err != nil {
			return err
		}
		texts, err := pictureTexts(r)
		if err != nil {
			return err
		}
		labels, err := r.Images.ReadLabels(r.Samples)
		if err != nil {
			return err
		}
		w := pictureWriter{folder: folder, title: r.NumberedTitle(), names: names, images: r.Images, progress: s.Progress, by: pictureBy()}
		w.begin, w.silent = len(names)*s.Work.Part.I/max(1, s.Work.Part.N), s.Child && s.Work.Part.I > 0
		w.texts = func(i int) []store.PNGText { return append(texts(i), labelText(labels, i)...) }
		if err := w.write(ctx); err != nil {
			return err
		}
	}
	return nil
}

// pictureTexts are what the files of a row tell of each image: what it is a function of,
// and no name of the experiment or the row, which may change.
func pictureTexts(r *plan.Run) (func(i int) []store.PNGText, error) {
	config, err := r.Config()
	if err != nil {
		return nil, err
	}
	var settings struct {
		Sampler  json.RawMessage `json:"sampler"`
		Guidance json.RawMessage `json:"guidance"`
	}
	if err := json.Unmarshal(config, &settings); err != nil {
		return nil, err
	}
	own := ""
	if c, ok := r.Model.Flags.(models.Captioned); ok {
		own = c.Negative()
	}
	head := []store.PNGText{
		{Key: "run", Value: r.ID}, {Key: "sampler", Value: string(settings.Sampler)}, {Key: "guidance", Value: string(settings.Guidance)},
		{Key: "seed", Value: fmt.Sprint(r.Seed)},
	}
	return func(i int) []store.PNGText {
		texts := append(slices.Clone(head), store.PNGText{Key: "image", Value: fmt.Sprint(i)})
		if len(r.Prompts) == 0 {
			return texts
		}
		negative := r.NegativeOf(i)
		if negative == "" {
			negative = own
		}
		for _, t := range []store.PNGText{{Key: "prompt", Value: r.PromptOf(i)}, {Key: "negative_prompt", Value: negative}, {Key: "file_name", Value: r.FileNameOf(i)}} {
			if t.Value != "" || t.Key == "prompt" {
				texts = append(texts, t)
			}
		}
		return texts
	}, nil
}

func labelText(labels []int64, i int) []store.PNGText {
	if labels == nil {
		return nil
	}
	return []store.PNGText{{Key: "label", Value: fmt.Sprint(labels[i])}}
}

// ExportFile writes the images of an .npz file, arr_0 [N,H,W,3] uint8, as PNG files; with
// the labels of arr_1, if there are any.
func ExportFile(ctx context.Context, path string, p Pictures, progress *human.Progress) error {
	if err := p.check(); err != nil {
		return err
	}
	if p.ByFile {
		return human.Misusef("--names file: %s has no names of files; --names index names them by the numbers of the images", path)
	}
	images, err := store.OpenImages(path)
	if err != nil {
		return err
	}
	n := images.Whole()
	labels, err := images.ReadLabels(n)
	if err != nil {
		progress.Note(fmt.Sprintf("note: %v; the files have no labels", err))
	}
	w := pictureWriter{folder: p.Folder, title: filepath.Base(path), names: numberedNames(n), images: images, progress: progress, by: pictureBy()}
	w.texts = func(i int) []store.PNGText {
		return append([]store.PNGText{{Key: "source", Value: filepath.Base(path)}, {Key: "image", Value: fmt.Sprint(i)}}, labelText(labels, i)...)
	}
	defer progress.End()
	return w.write(ctx)
}

// pictureBy is a part of temporary names that no other process has, on any machine. It
// ends in a digit.
func pictureBy() string { return fmt.Sprintf("%d-%d", os.Getpid(), rand.Uint64()) }

// A pictureWriter writes the images of one file as PNG files.
type pictureWriter struct {
	folder, title, by string
	names             []string
	images            *store.Images
	texts             func(i int) []store.PNGText
	progress          *human.Progress
	begin             int  // the first image that is written; those before it follow
	silent            bool // another process tells what is done
}

// write encodes several images at once, since this takes longer than reading them. The
// first error ends it; files that are written by then are whole. Of several processes
// that write the same files each begins at a place of its own and compares what others
// have written.
func (w *pictureWriter) write(ctx context.Context) error {
	others, one, err := store.PreparePNGs(w.folder, w.names)
	if err != nil {
		return err
	}
	w.progress.Stage(w.title, "pictures", 0, len(w.names))
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	var kept, done atomic.Int64
	told := int64(0)
	for _, span := range []store.Span{{From: w.begin, To: len(w.names)}, {To: w.begin}} {
		i := span.From
		one := func(pixels []uint8) error {
			p := &store.PNGFile{Path: filepath.Join(w.folder, w.names[i]), Height: w.images.Height, Width: w.images.Width, Pixels: slices.Clone(pixels), Texts: w.texts(i)}
			i++
			group.Go(func() error {
				was, err := p.Write(w.by)
				if err == nil && was {
					kept.Add(1)
				}
				done.Add(1)
				return err
			})
			if n := done.Load(); n > told {
				w.progress.Add(int(n - told))
				told = n
			}
			return nil
		}
		if err = w.images.Each(inner, span, one); err != nil {
			break
		}
	}
	failed := group.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if failed != nil {
		return failed
	}
	if err != nil {
		return err
	}
	w.progress.End()
	text := fmt.Sprintf("%s: %d pictures in %s", w.title, len(w.names), w.folder)
	if n := kept.Load(); n > 0 {
		text += fmt.Sprintf(", %d of which were there", n)
	}
	if w.silent {
		return nil
	}
	w.progress.Tell(text)
	if others > 0 {
		w.progress.Note(fmt.Sprintf("note: %s holds %d files that are no pictures of these, such as %s; an evaluation of the folder may take them too", w.folder, others, one))
	}
	return nil
}
