package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// foreign are the beginnings of files that people hand over by mistake.
var foreign = []struct{ magic, what string }{
	{"\x1f\x8b", "is gzip-compressed; unpack it first (gunzip)"},
	{"BZh", "is bzip2-compressed; unpack it first (bunzip2)"},
	{"\xfd7zXZ\x00", "is xz-compressed; unpack it first (unxz)"},
	{"\x28\xb5\x2f\xfd", "is zstd-compressed; unpack it first (unzstd)"},
	{"7z\xbc\xaf\x27\x1c", "is a 7z archive; unpack it first"},
	{"\x89HDF\r\n", "is an HDF5 file; a PyTorch (.pt) or .safetensors checkpoint is needed"},
	{"\x93NUMPY", "is a NumPy array (.npy); a PyTorch (.pt) or .safetensors checkpoint is needed"},
	{"GGUF", "is a GGUF file; a PyTorch (.pt) or .safetensors checkpoint is needed"},
	{"\x89PNG", "is a PNG image"},
	{"\xff\xd8\xff", "is a JPEG image"},
}

// detect tells the format of a checkpoint by its content. The error says what
// the file is where it is something else.
func detect(data []byte) (string, error) {
	if len(data) == 0 {
		return "", errors.New("is empty (0 bytes); download it again")
	}
	if bytes.HasPrefix(data, []byte("PK\x03\x04")) || bytes.HasPrefix(data, []byte("PK\x05\x06")) {
		return TorchZip, nil
	}
	for _, f := range foreign {
		if bytes.HasPrefix(data, []byte(f.magic)) {
			return "", errors.New(f.what)
		}
	}
	if looksLikeSafetensors(data) {
		return Safetensors, nil
	}
	if len(data) > 262 && string(data[257:262]) == "ustar" {
		return "", errors.New("is a tar archive: unpack it first; if PyTorch before 0.1.10 wrote it, load and save it with a newer one")
	}
	if len(data) > 1 && data[0] == 0x80 && data[1] <= 5 && !isPickleOfTorch(data) {
		return Persistent, nil
	}
	if len(data) > 1 && data[0] == 0x80 && data[1] <= 5 || bytes.HasPrefix(data, []byte("L"+legacyMagic)) { // the second: pickle protocols 0 and 1
		return TorchLegacy, nil
	}
	return "", describeText(data)
}

// looksLikeSafetensors: eight bytes of header length, then a JSON object. Where
// this is clearly a header whose length cannot be true, the answer is yes, for
// parseSafetensors to say what is wrong.
func looksLikeSafetensors(data []byte) bool {
	if len(data) < 10 || data[8] != '{' {
		return false
	}
	rest := bytes.TrimLeft(data[9:min(len(data), 64)], " \t\r\n")
	return len(rest) > 0 && (rest[0] == '"' || rest[0] == '}') ||
		binary.LittleEndian.Uint64(data) < maxHeader
}

// describeText says what a file that is no checkpoint seems to be.
func describeText(data []byte) error {
	head := data[:min(len(data), 1024)]
	text := strings.TrimSpace(strings.TrimPrefix(string(head), "\ufeff"))
	lower := strings.ToLower(text)
	switch {
	case strings.HasPrefix(text, "version https://git-lfs"):
		size := ""
		for line := range strings.Lines(text) {
			if s, ok := strings.CutPrefix(strings.TrimSpace(line), "size "); ok {
				size = " of " + shorten(s) + " bytes"
			}
		}
		return fmt.Errorf("is a Git LFS pointer, not the file%s that it stands for; fetch that with: git lfs pull", size)
	case strings.HasPrefix(lower, "<!doctype html"), strings.HasPrefix(lower, "<html"), strings.HasPrefix(lower, "<?xml"), strings.HasPrefix(lower, "<head"):
		return errors.New("is a web page (HTML), not a checkpoint; the download was refused or went through a viewer page: download it again")
	case isText(head):
		line, _, _ := strings.Cut(text, "\n")
		begin := []rune(line)
		return fmt.Errorf("is a text file, not a checkpoint; it begins %q", shorten(string(begin[:min(len(begin), 60)])))
	}
	return fmt.Errorf("is neither a PyTorch checkpoint (zip or legacy pickle) nor a .safetensors file; it begins with the bytes % x", data[:min(len(data), 12)])
}

// isText: valid UTF-8, up to a rune cut at the end, without control
// characters.
func isText(head []byte) bool {
	for len(head) > 0 {
		r, n := utf8.DecodeRune(head)
		if r == utf8.RuneError && n == 1 {
			return len(head) < utf8.UTFMax && !utf8.FullRune(head)
		}
		if unicode.IsControl(r) && !unicode.IsSpace(r) {
			return false
		}
		head = head[n:]
	}
	return true
}
