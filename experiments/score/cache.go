package score

import (
	"crypto/sha256"
	"fmt"

	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/experiments/human"
	"sagbench/experiments/store"
	"sagbench/models/cache"
	"sagbench/models/ort"
)

// featuresKey is a hash of what features of images depend on, the images being
// given by a hash or an id of theirs.
func (x *Extractor) featuresKey(images string) ([]byte, error) {
	runtime, err := ort.RuntimeVersion()
	key := sha256.Sum256(fmt.Appendf(nil, "features 4 %s %s %s %s", images, x.key(), runtime, x.options.Computer()))
	return key[:], err
}

// cacheKey is what these parts of features are kept under.
func cacheKey(key []byte, want eval.Parts) []byte { return fmt.Appendf(nil, "%x %v", key, want) }

// keepFeatures puts features into the user's cache folder.
func keepFeatures(key []byte, want eval.Parts, f *eval.Features, read images.Report) error {
	return cache.Features.Keep(cacheKey(key, want), func(path string) error {
		return store.WriteFeatures(path, key, f, read)
	})
}

// cachedFeatures reads features of the images at source from the user's cache
// folder. A file that is damaged, which p is told, or of something else is as good
// as none; so is one that leaves broken images out where these are an error.
func cachedFeatures(key []byte, want eval.Parts, source string, opt images.Options, p *human.Progress) (*eval.Features, images.Report, bool) {
	path, damaged := cache.Features.Find(cacheKey(key, want))
	if damaged {
		p.Note(fmt.Sprintf("note: the features of %s in the user's cache folder were damaged; they are computed anew", source))
	}
	if path == "" {
		return nil, images.Report{}, false
	}
	f, report, ok := store.ReadFeatures(path, key, want)
	if !ok || len(report.Broken) > 0 && !opt.SkipBroken {
		return nil, images.Report{}, false
	}
	return f, report, true
}
