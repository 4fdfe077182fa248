package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/eval/npz"
	"sagbench/models"
)

// A referenceJob is what the command reference is asked for.
type referenceJob struct {
	protocol eval.Protocol
	network  featureNetwork
	data     string
	out      string
	count    int // images to put beside the statistics
	read     images.Options
}

func referenceCommand(g *globals) *cobra.Command {
	var job referenceJob
	var networks networkFlags
	protocol, force := eval.DefaultProtocol, false
	cmd := &cobra.Command{
		Use:   "reference DATA -o REF.npz",
		Short: "make a reference batch of a data set, which ADM's evaluator reads as well",
		Long: `Computes the statistics of all images of DATA, mu, sigma, mu_s and sigma_s, and writes
them to REF.npz with a choice of the images, arr_0, which precision and recall are
measured on: the layout of ADM's published reference batches. Which images are chosen
depends on their number alone.

Beside them the file says how it was made (network, resize, number and hash of the
images): eval and run refuse it where that disagrees with the features that it is to
be compared with. DATA is whatever eval reads: a folder, a .zip, an .npz or an .npy.`,
		Example: `  sagbench reference imagenet/train -o ref.npz --inception pt_inception-2015-12-05-6726825d.pth
  sagbench reference faces.zip -o ref.npz --inception FILE --protocol clean-fid --images 0`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("reference: %d data sets given, expected one", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if job.protocol, err = eval.ProtocolOf(protocol); err != nil {
				return fmt.Errorf("--%w", err)
			}
			if job.network, err = networks.main(cmd.Flags(), job.protocol); err != nil {
				return err
			}
			job.data = args[0]
			switch {
			case job.out == "":
				return errors.New("-o is missing: the file to write, REF.npz")
			case filepath.Ext(job.out) != ".npz":
				return fmt.Errorf("-o is %q, expected a name that ends in .npz", job.out)
			case job.count < 0:
				return fmt.Errorf("--images is %d, expected 0 or more", job.count)
			case exists(job.out) && !force:
				return fmt.Errorf("%s is there already; --force replaces it", job.out)
			}
			return job.run(cmd.Context(), g, newProgress(os.Stderr))
		},
	}
	f := cmd.Flags()
	f.StringVarP(&job.out, "out", "o", "", "file to write")
	f.IntVar(&job.count, "images", 10_000, "images to put beside the statistics, all of one size; 0: none")
	f.BoolVar(&force, "force", false, "replace a file that is there")
	f.StringVar(&protocol, "protocol", protocol, "whose statistics: adm, pytorch-fid, torch-fidelity or clean-fid")
	networks.register(f)
	f.BoolVar(&job.read.SkipBroken, "skip-broken", false, "leave images out that cannot be decoded; without it they are an error")
	return cmd
}

// run computes the statistics and writes the file.
func (j *referenceJob) run(ctx context.Context, g *globals, p *progress) error {
	defer p.end()
	h := hashes{}
	x, err := newExtractor(j.network, h, g.runtime())
	if err != nil {
		return err
	}
	defer x.close()
	content, err := h.of(j.data)
	if err != nil {
		return err
	}
	set, err := eval.ReadReference(ctx, j.data, j.read)
	if err != nil {
		return err
	}
	defer set.Close()
	if set.Images == nil {
		return fmt.Errorf("%s: holds no images to make statistics of", j.data)
	}
	want := parts{stats: true, spatial: slices.Contains(x.net.Outputs(), models.Spatial)}
	f, report, err := x.referenceImages(ctx, set, content, j.read, want, true, p)
	if err != nil {
		return err
	}
	x.complete(f, j.data)
	origin := &eval.Provenance{
		Program: "sagbench " + version, Protocol: j.protocol.Name, Network: x.name, SHA256: x.sha256, Resize: string(x.resize),
		InputSize: x.side(), Images: f.N, Source: filepath.Base(j.data), Content: content,
	}
	if origin.Versions, err = versions(); err != nil {
		return err
	}
	return explainWrite(j.out, j.write(ctx, f, report, origin))
}

// write writes the file.
func (j *referenceJob) write(ctx context.Context, f *eval.Features, report images.Report, origin *eval.Provenance) error {
	w, err := npz.Create(j.out)
	if err != nil {
		return err
	}
	defer w.Abort()
	single := j.protocol.Mean() == eval.MeanFloat32
	if err := errors.Join(statistics(w, "", f.Stats, single), statistics(w, "_s", f.Spatial, single)); err != nil {
		return err
	}
	if n := min(j.count, f.N); n > 0 {
		if err := j.writeImages(ctx, w, eval.Choice(f.N, n), report); err != nil {
			return err
		}
	}
	if now, err := images.Hash(j.data); err != nil || now != origin.Content {
		return errors.Join(err, fmt.Errorf("%s: changed while it was read; nothing is written", j.data))
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
		err = writeArray(w, "mu"+suffix, s.Mean32, s.D())
	} else {
		err = writeArray(w, "mu"+suffix, s.Mean, s.D())
	}
	if err != nil {
		return err
	}
	return writeArray(w, "sigma"+suffix, s.Cov, s.D(), s.D())
}

// writeImages writes the chosen ones of the images that are not broken, which
// are counted in the order of the set.
func (j *referenceJob) writeImages(ctx context.Context, w *npz.Writer, chosen []int, report images.Report) error {
	ref, err := eval.ReadReference(ctx, j.data, j.read)
	if err != nil {
		return err
	}
	defer ref.Close()
	broken := map[string]bool{}
	for _, b := range report.Broken {
		broken[b.Name] = true
	}
	var out *npz.ArrayWriter
	var height, width int
	at, n := 0, len(chosen)
	for pending, err := range ref.Images.Images() {
		if err := errors.Join(err, ctx.Err()); err != nil {
			return images.At(err, j.data)
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
			return fmt.Errorf("%s: %s: %w", j.data, pending.Name, err)
		}
		if out == nil {
			height, width = im.Height, im.Width
			if out, err = w.Array("arr_0", npz.Uint8, n, height, width, 3); err != nil {
				return err
			}
		}
		if im.Height != height || im.Width != width {
			return fmt.Errorf("%s: %s has %d×%d pixels, others have %d×%d: an array holds images of one size; --images 0 writes the statistics alone",
				j.data, pending.Name, im.Height, im.Width, height, width)
		}
		if err := npz.WriteRows(out, im.Pixels); err != nil {
			return err
		}
	}
	return nil
}
