package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestForeignFiles(t *testing.T) {
	tar := make([]byte, 1024)
	copy(tar[257:], "ustar")
	for want, data := range map[string]string{
		"is empty (0 bytes)":               "",
		"is gzip-compressed; unpack it":    "\x1f\x8b\x08\x00xxxx",
		"is bzip2-compressed":              "BZh91AY&SY",
		"is xz-compressed":                 "\xfd7zXZ\x00\x00",
		"is zstd-compressed":               "\x28\xb5\x2f\xfd\x04",
		"is a NumPy array":                 "\x93NUMPY\x01\x00v\x00{'descr': '<f4'}",
		"is an HDF5 file":                  "\x89HDF\r\n\x1a\n",
		"is a tar archive":                 string(tar),
		"is a web page (HTML)":             "\n <!DOCTYPE html><html><head><title>Sign in</title>",
		"of 2200000000 bytes that it":      "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 2200000000\n",
		"git lfs pull":                     "version https://git-lfs.github.com/spec/v1\n",
		`is a text file, not a checkpoint`: "{\n  \"image_size\": 256\n}",
		`it begins "Not Found"`:            "Not Found",
		`it begins "naïve"`:                "\xef\xbb\xbfnaïve\nx",
		"begins with the bytes 00 01 02":   "\x00\x01\x02\xff",
		"no such opcode":                   "\x80\x02\xff",
	} {
		path := write(t, "model.pt", []byte(data))
		_, err := Open(path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "checkpoint: "+path+": ") {
			t.Errorf("%.20q: error %v, want one with %q", data, err, want)
		}
	}
}

func TestNotAFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a folder: %v", err)
	}
	if _, err := Open(filepath.Join(dir, "no.pt")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := Open(os.DevNull); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a device: %v", err)
	}
}

// The extension does not matter.
func TestDetectByContent(t *testing.T) {
	for name, want := range map[string]string{"views.pt": TorchZip, "views-legacy.pt": TorchLegacy, "official.safetensors": Safetensors} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		f := open(t, write(t, "weights.txt", data))
		if f.Format != want {
			t.Errorf("%s is taken for %s, want %s", name, f.Format, want)
		}
		sum := sha256.Sum256(data)
		if got, err := f.SHA256(); err != nil || got != hex.EncodeToString(sum[:]) {
			t.Errorf("%s: SHA256 %s, %v", name, got, err)
		}
	}
}
