package score

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sagbench/eval"
	"sagbench/eval/images"
	"sagbench/experiments/store"
	"sagbench/models/ort"
)

// cacheLimit bounds the files of features in the user's cache folder; those of
// 50,000 images take half a gigabyte.
const cacheLimit = 16 << 30

// featuresKey is a hash of what features of images depend on, the images being
// given by a hash or an id of theirs.
func (x *Extractor) featuresKey(images string) ([]byte, error) {
	runtime, err := ort.RuntimeVersion()
	key := sha256.Sum256(fmt.Appendf(nil, "features 4 %s %s %s %s", images, x.key(), runtime, ort.Kernels()))
	return key[:], err
}

// cachePath names the file that keeps features; "" if the user has no cache
// folder.
func cachePath(key []byte, want eval.Parts) string {
	folder, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	name := sha256.Sum256(fmt.Appendf(nil, "%x %v", key, want))
	return filepath.Join(folder, "sagbench", "features", fmt.Sprintf("%x.npz", name[:16]))
}

// keepFeatures writes features to the cache, and removes from it those that have not
// been read for the longest time, where it is full.
func keepFeatures(path string, key []byte, f *eval.Features, read images.Report) error {
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	if err := store.WriteFeatures(path, key, f, read); err != nil {
		return err
	}
	return pruneCache(folder, cacheLimit)
}

// cachedFeatures reads features from the cache. A file that is damaged, which
// its checksums show, or of something else is as good as none; so is one that
// leaves broken images out where these are an error.
func cachedFeatures(path string, key []byte, want eval.Parts, opt images.Options) (*eval.Features, images.Report, bool) {
	f, report, ok := store.ReadFeatures(path, key, want)
	if !ok || len(report.Broken) > 0 && !opt.SkipBroken {
		return nil, images.Report{}, false
	}
	now := time.Now()
	os.Chtimes(path, now, now) // only the order of removal depends on it
	return f, report, true
}

// pruneCache removes the oldest files of a folder until they fit the limit.
func pruneCache(folder string, limit int64) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	var files []os.FileInfo
	total := int64(0)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && filepath.Ext(e.Name()) == ".npz" {
			files = append(files, info)
			total += info.Size()
		}
	}
	slices.SortFunc(files, func(a, b os.FileInfo) int { return cmp.Compare(a.ModTime().UnixNano(), b.ModTime().UnixNano()) })
	for _, f := range files {
		if total <= limit {
			break
		}
		if err := os.Remove(filepath.Join(folder, f.Name())); err != nil {
			return err
		}
		total -= f.Size()
	}
	return nil
}
