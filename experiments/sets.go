package main

import (
	"strings"

	"github.com/spf13/pflag"

	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/experiments/human"
)

// kindsOfSets is the part of help that lists what a set of images can be.
const kindsOfSets = `  - an .npz in the layout of ADM's evaluator: images arr_0 [N,H,W,3] and, where they
    are known, statistics mu, sigma, mu_s, sigma_s, which are used instead of the
    images' own (mu and sigma alone is the layout of pytorch-fid, clean-fid and EDM),
    or features feats [N,D], clean-fid's reference of KID;
  - an .npy array of images;
  - a folder of image files, those of its subfolders included, in the byte order of
    their paths; or a .zip or a .tar of such files, .tar.gz, .tgz and .tar.zst too. A
    tar is read as WebDataset writes it, so that an image has a key of its own;
  - a .parquet file with a column of structs {bytes, path} or of bytes, as the data
    sets of a hub have it;
  - a folder of .tar, of .npz or of .parquet files, or a pattern of such files in
    quotes, "shard-{000..004}.tar" or "*.npz": their images, file after file;
  - a list of image files, one path a line, relative to the list's folder: @list.txt;
  - -, a tar on standard input.
Image files are PNG, JPEG, WebP, BMP, GIF, TIFF and PPM (PGM, PBM).
Images of one set may differ in size. Their pixels are those that Pillow's
convert("RGB") gives: grey is repeated over three channels, transparency is dropped,
of an animation the first frame is read.`

// A subsetFlags are the flags that choose some images of SAMPLES.
type subsetFlags struct{ first, random, seed int }

// maxSubset bounds the images that may be asked for.
const maxSubset = 50_000_000

func (s *subsetFlags) register(f *pflag.FlagSet) {
	boundedInt(f, &s.first, "first", 0, 0, maxSubset, "images of SAMPLES to take, the first ones in their order; 0 for all")
	boundedInt(f, &s.random, "random", 0, 0, maxSubset, "images of SAMPLES to take at random, none twice and in their order; 0 for all")
	boundedInt(f, &s.seed, "subset-seed", 0, 0, 1<<32-1, "seed of --random, which takes sorted(numpy.random.RandomState(SEED).permutation(N)[:RANDOM])")
}

// chooser is what the flags choose; nil for all images.
func (s *subsetFlags) chooser(f *pflag.FlagSet) (images.Chooser, error) {
	switch {
	case s.first > 0 && s.random > 0:
		return nil, human.Misusef("--first and --random exclude each other")
	case f.Changed("subset-seed") && s.random == 0:
		return nil, human.Misusef("--subset-seed is for --random N")
	case s.first == 0 && s.random == 0:
		return nil, nil
	}
	return eval.Subset{First: s.first, Random: s.random, Seed: uint32(s.seed)}, nil
}

// setPaths are the sets of images that arguments name. Standard input may be one of them,
// unless several processes read the sets.
func setPaths(arguments []string, processes bool) ([]string, error) {
	paths := make([]string, len(arguments))
	standard := 0
	for i, a := range arguments {
		if paths[i] = images.SetPath(a); paths[i] == images.Standard {
			standard++
		}
		if a == "" || strings.TrimPrefix(a, "@") == "" {
			return nil, human.Misusef("a set of images is %q, expected a path", a)
		}
	}
	switch {
	case standard > 1:
		return nil, human.Misusef("standard input is given for %d sets, but can be read once", standard)
	case standard == 1 && processes:
		return nil, human.Misusef("standard input cannot be read by the processes of several devices; write the tar to a file first")
	}
	return paths, nil
}
