package score

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/eval/npz"
	"sagbench/experiments/human"
	"sagbench/experiments/plan"
	"sagbench/experiments/store"
	"sagbench/models/features"
	"sagbench/models/ort"
)

// reference is what the metrics need of a reference batch or of samples:
// statistics that the file holds are taken from it, as ADM's evaluator does;
// everything else is computed from its images, and goes to the user's cache folder
// under the hash of all that it depends on.
func (x *Extractor) reference(ctx context.Context, path, contentSHA256 string, opt images.Options, want eval.Parts, p *human.Progress) (*eval.Features, images.Report, error) {
	var report images.Report
	ref, err := eval.ReadReference(ctx, path, opt)
	if err != nil {
		return nil, report, err
	}
	defer ref.Close()
	notes, err := x.agree(ref, contentSHA256)
	if err != nil {
		return nil, report, err
	}
	compute := x.computed(want)
	compute.Stats = want.Stats && ref.Pool == nil
	compute.Spatial = want.Spatial && ref.Spatial == nil
	f := &eval.Features{D: x.Net.Width()}
	if compute != (eval.Parts{}) && ref.Images != nil {
		if f, report, err = x.referenceImages(ctx, ref, contentSHA256, opt, compute, p); err != nil {
			return nil, report, err
		}
	}
	if !ref.Features.IsZero() {
		f.Pool, f.N = ref.Features.Data, ref.Features.Rows()
		if f.Stats, err = eval.StatsOf(f.Pool, f.D, x.Products); err != nil {
			return nil, report, fmt.Errorf("%s: %w", path, err)
		}
	}
	if ref.Pool != nil {
		f.Stats = ref.Pool
	}
	if ref.Spatial != nil {
		f.Spatial = ref.Spatial
	}
	if ref.Images != nil {
		f.Height, f.Width = ref.Images.Size()
	}
	x.complete(f, path)
	f.Notes = slices.Concat(ref.Warnings, notes)
	for _, line := range report.Notes() {
		f.Notes = append(f.Notes, path+": "+line)
	}
	for i, n := range f.Notes {
		p.Note("note: " + n)
		f.Notes[i] = strings.ReplaceAll(n, path, filepath.Base(path))
	}
	return f, report, nil
}

// agree checks that the statistics of a reference were made with this network.
// A file that does not say with which holds Inception's. Another network uses the
// images of a file of Inception's. content is the sha256 of the file.
func (x *Extractor) agree(ref *eval.Reference, content string) (notes []string, err error) {
	inception, file := features.Networks[0].Name, filepath.Base(x.Weights.Path)
	of := inception
	if ref.Provenance != nil {
		of = ref.Provenance.Network
	}
	statistics := ref.Pool != nil || ref.Spatial != nil
	if statistics && of == x.Name && x.OwnResize() && ref.Images != nil && ref.Provenance.Resize != string(x.Resize) { // of all metrics but this one
		ref.Pool, ref.Spatial = nil, nil
		return []string{fmt.Sprintf("%s: its statistics are not of resize %s, its %d images are used", ref.Path, x.Resize, ref.Images.N)}, nil
	}
	switch foreign := statistics && of == inception && x.Name != of; {
	case !ref.Features.IsZero() && x.Name != inception:
		return nil, fmt.Errorf("%s: its features feats are clean-fid's, of Inception and not of %s", ref.Path, file)
	case !ref.Features.IsZero() && ref.Features.RowLen() != x.Net.Width():
		return nil, fmt.Errorf("%s: its features have %d dimensions, those of %s %d: they were made with another network", ref.Path, ref.Features.RowLen(), file, x.Net.Width())
	case foreign && ref.Images == nil:
		return nil, fmt.Errorf("%s: its statistics are not of %s, or do not say so; give the images themselves, or make a reference of them with `sagbench reference`", ref.Path, file)
	case foreign:
		ref.Pool, ref.Spatial = nil, nil
		return []string{fmt.Sprintf("%s: its statistics are not of %s, its %d images are used", ref.Path, file, ref.Images.N)}, nil
	}
	notes, err = ref.Agree(content, eval.Provenance{Network: x.Name, SHA256: x.sha256, Resize: string(x.Resize), InputSize: x.side()})
	if err == nil && statistics && ref.Provenance != nil {
		note, errVersions := x.otherVersions(ref)
		if note != "" {
			notes = append(notes, note)
		}
		err = errVersions
	}
	if err == nil && ref.Pool != nil && ref.Pool.D() != x.Net.Width() {
		err = fmt.Errorf("%s: its statistics are of %d features, %s has %d: they were made with another network", ref.Path, ref.Pool.D(), file, x.Net.Width())
	}
	if err == nil {
		err = x.agreeSize(ref)
	}
	return notes, err
}

// agreeSize is an error where the statistics of a reference that does not name its
// input size are of another one all the same: the spatial features say so by their
// number, and the layouts of ADM and clean-fid by the evaluators that have them, whose
// networks look at images of one size.
func (x *Extractor) agreeSize(ref *eval.Reference) error {
	if _, spatial := x.Flags.Features(x.Weights.Path); ref.Spatial != nil && spatial > 0 && ref.Spatial.D() != spatial {
		return fmt.Errorf("%s: its statistics are of %d spatial features, and images of %d×%[3]d pixels have %d: they were made at another input size; choose that one, or make the statistics anew with `sagbench reference`", ref.Path, ref.Spatial.D(), x.side(), spatial)
	}
	named := ref.Provenance != nil || ref.Spatial == nil && ref.Features.IsZero()
	if !named && x.Net.Width() == x.UsualWidth && x.side() != x.UsualSide {
		return fmt.Errorf("%s: has the layout of ADM's or clean-fid's evaluator, which are of images of %d×%[2]d pixels; these are of %d×%[3]d: choose the same, or make the statistics anew with `sagbench reference`", ref.Path, x.UsualSide, x.side())
	}
	return nil
}

// otherVersions tells where the statistics of a reference were made by other
// versions than those that the result names; "" where they were not.
func (x *Extractor) otherVersions(ref *eval.Reference) (string, error) {
	ours, err := Versions(x.options)
	theirs := ref.Provenance.Versions
	var differ []string
	for _, name := range []string{"sagbench", "onnxruntime", "kernels"} {
		if theirs[name] != ours[name] {
			differ = append(differ, fmt.Sprintf("%s %s (here %s)", name, cmp.Or(theirs[name], "none"), cmp.Or(ours[name], "none")))
		}
	}
	if err != nil || differ == nil {
		return "", err
	}
	return fmt.Sprintf("%s: its statistics were made with %s", ref.Path, strings.Join(differ, ", ")), nil
}

// setKey is what features of the images of a set are kept under: the hash of what is read of
// the set, so that no option of reading it has to be part of the key.
func setKey(content string) string { return "set " + content }

// referenceImages are the features of the images, from the cache if they are
// there.
func (x *Extractor) referenceImages(ctx context.Context, ref *eval.Reference, contentSHA256 string, opt images.Options, want eval.Parts, p *human.Progress) (*eval.Features, images.Report, error) {
	var report images.Report
	if kind, err := images.KindOf(ref.Path); err == nil && (kind == images.Array || kind == images.NPZ) { // whose images have one size
		height, width := ref.Images.Size()
		x = x.squares(height == width)
	}
	content, err := ref.Images.Content(ctx)
	if err != nil {
		return nil, report, err
	}
	key, err := x.featuresKey(setKey(content))
	if err != nil {
		return nil, report, err
	}
	if f, read, ok := cachedFeatures(key, want, ref.Path, opt, p); ok {
		read.Content = content
		return f, read, ref.Images.Rename(read.Broken)
	}
	p.Stage("features of "+filepath.Base(ref.Path), "images", 0, ref.Images.N)
	defer p.End()
	f, report, err := x.sharedFeatures(ctx, Source{ref.Path, ref.Images.N, ref.Images.Images()}, opt, want, key, p.Add)
	if err != nil {
		return nil, report, err
	}
	if now, err := images.Hash(ref.Path); err != nil || now != contentSHA256 {
		return nil, report, errors.Join(err, fmt.Errorf("%s: changed while it was read", ref.Path))
	}
	report.Content = content
	if err := keepFeatures(key, want, f, report); err != nil {
		p.Note(fmt.Sprintf("the features of %s are not kept for the next time: %v", ref.Path, err))
	}
	return f, report, nil
}

// A ReferenceBatch is a reference file to be made of a set of images, as the command
// reference asks for it.
type ReferenceBatch struct {
	Protocol eval.Protocol
	Network  plan.FeatureNetwork
	Data     string // path of the images
	Out      string // path of the file
	Count    int    // images to put beside the statistics; 0: none
	Read     images.Options
}

// Make computes the statistics and writes the file, whole or not at all.
func (b *ReferenceBatch) Make(ctx context.Context, opt ort.Options, p *human.Progress) error {
	defer p.End()
	e := NewEngine(opt, store.Hashes{}, p)
	defer e.Close()
	b.Read.Flat = b.Protocol.Flat
	opened, err := e.network(ctx, b.Network)
	if err != nil {
		return err
	}
	x := opened.Extractor
	content, err := e.hashes.Of(b.Data)
	if err != nil {
		return err
	}
	set, err := eval.ReadReference(ctx, b.Data, b.Read)
	if err != nil {
		return err
	}
	defer set.Close()
	if set.Images == nil {
		return fmt.Errorf("%s: holds no images to make statistics of", b.Data)
	}
	if err := b.checkSizes(ctx, set.Images); err != nil { // before hours of computing
		return err
	}
	f, report, err := x.referenceImages(ctx, set, content, b.Read, eval.Parts{Stats: true, Spatial: slices.Contains(x.Net.Outputs(), features.Spatial)}, p)
	if err != nil {
		return err
	}
	for _, n := range slices.Concat(set.Warnings, report.Notes()) {
		if !strings.HasPrefix(n, b.Data) {
			n = b.Data + ": " + n
		}
		p.Note("note: " + n)
	}
	x.complete(f, b.Data)
	origin := &eval.Provenance{
		Program: "sagbench " + store.Version, Protocol: b.Protocol.Name, Network: x.Name, SHA256: x.sha256, Resize: string(x.Resize),
		InputSize: x.side(), Images: f.N, Source: filepath.Base(b.Data), Content: content,
	}
	if origin.Versions, err = Versions(opt); err != nil {
		return err
	}
	return store.Output(b.Out, func(file string) error {
		return store.ExplainWrite(file, b.write(ctx, file, f, report, origin))
	})
}

// checkSizes is an error where the images that are to be kept differ in size.
func (b *ReferenceBatch) checkSizes(ctx context.Context, set *images.Set) error {
	if b.Count == 0 {
		return nil
	}
	mixed, err := set.Mixed(ctx, func(n int) []int { return eval.Choice(n, min(b.Count, n)) })
	if err == nil && mixed != "" {
		err = fmt.Errorf("%s: %s: an array holds images of one size; --images 0 writes the statistics alone", b.Data, mixed)
	}
	return err
}

// write writes the statistics f, images and origin to a file.
func (b *ReferenceBatch) write(ctx context.Context, file string, f *eval.Features, report images.Report, origin *eval.Provenance) error {
	w, err := npz.Create(file)
	if err != nil {
		return err
	}
	defer w.Abort()
	single := b.Protocol.Mean() == eval.MeanFloat32
	if err := errors.Join(statistics(w, "", f.Stats, single), statistics(w, "_s", f.Spatial, single)); err != nil {
		return err
	}
	if n := min(b.Count, f.N); n > 0 {
		if err := b.writeImages(ctx, w, eval.Choice(f.N, n), report); err != nil {
			return err
		}
	}
	if now, err := images.Hash(b.Data); err != nil || now != origin.Content {
		return errors.Join(err, fmt.Errorf("%s: changed while it was read; nothing is written", b.Data))
	}
	if err := origin.Write(w); err != nil {
		return err
	}
	return w.Commit()
}

// statistics writes a mean, in the protocol's arithmetic, and a covariance.
func statistics(w *npz.Writer, suffix string, s *eval.Stats, single bool) error {
	if s == nil {
		return nil
	}
	var err error
	if single {
		err = npz.WriteArray(w, "mu"+suffix, s.Mean32, s.D())
	} else {
		err = npz.WriteArray(w, "mu"+suffix, s.Mean, s.D())
	}
	if err != nil {
		return err
	}
	return npz.WriteArray(w, "sigma"+suffix, s.Cov, s.D(), s.D())
}

// writeImages writes the chosen ones of the images that are not broken, which
// are counted in the order of the set.
func (b *ReferenceBatch) writeImages(ctx context.Context, w *npz.Writer, chosen []int, report images.Report) error {
	ref, err := eval.ReadReference(ctx, b.Data, b.Read)
	if err != nil {
		return err
	}
	defer ref.Close()
	broken := map[string]bool{}
	for _, one := range report.Broken {
		broken[one.Name] = true
	}
	var out *npz.ArrayWriter
	var height, width int
	at, n := 0, len(chosen)
	for pending, err := range ref.Images.Images() {
		if err := errors.Join(err, ctx.Err()); err != nil {
			return images.WithPath(err, b.Data)
		}
		if broken[pending.Name] {
			continue
		}
		if len(chosen) == 0 {
			break
		}
		if at++; at-1 != chosen[0] {
			continue
		}
		chosen = chosen[1:]
		im, err := pending.Decode()
		if err != nil {
			return fmt.Errorf("%s: %s: %w", b.Data, pending.Name, err)
		}
		if out == nil {
			height, width = im.Height, im.Width
			if out, err = w.Array("arr_0", npz.Uint8, n, height, width, 3); err != nil {
				return err
			}
		}
		if im.Height != height || im.Width != width {
			return fmt.Errorf("%s: %s has %d×%d pixels, others have %d×%d: an array holds images of one size; --images 0 writes the statistics alone",
				b.Data, pending.Name, im.Height, im.Width, height, width)
		}
		if err := npz.WriteRows(out, im.Pixels); err != nil {
			return err
		}
	}
	return nil
}
