package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sagbench/eval/images"
	"sagbench/experiments/work"
)

// A PNGText is what a PNG file tells beside its pixels: a chunk tEXt of ASCII, or iTXt
// of any other text (PNG, third edition, 11.3.3).
type PNGText struct {
	Key   string // 1 to 79 letters of ASCII
	Value string
}

// A PNGFile is an image [Height,Width,3] to be written as a file.
type PNGFile struct {
	Path          string
	Height, Width int
	Pixels        []uint8
	Texts         []PNGText
}

// Write makes the file appear under its name, whole. One that is there stays: kept
// tells that it has these pixels and texts, an error that it has others. by is a part
// of the name that the file has until it is whole.
func (p *PNGFile) Write(by string) (kept bool, err error) {
	if _, err := os.Lstat(p.Path); err == nil { // as a rule, on a second call
		return true, p.compare()
	}
	data, err := p.encode()
	if err != nil {
		return false, err
	}
	first, err := work.Publish(work.Disk{}, p.Path, by, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
	if err != nil || first {
		return false, ExplainWrite(p.Path, err)
	}
	return true, p.compare()
}

// compare is an error where the file that is there is another image, or no image.
func (p *PNGFile) compare() error {
	differs := func(what string) error {
		return fmt.Errorf("%s is there and %s; it is kept. Name another folder, or remove it", p.Path, what)
	}
	info, err := os.Stat(p.Path)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return differs("is no file")
	case info.Size() > int64(len(p.Pixels))+maxPNGText:
		return differs("is larger than this image can be")
	}
	data, err := os.ReadFile(p.Path)
	if err != nil {
		return err
	}
	found, err := images.Decode(data, max(1, p.Height*p.Width))
	if err != nil {
		return differs(fmt.Sprintf("cannot be read as an image (%v)", err))
	}
	if found.Height != p.Height || found.Width != p.Width {
		return differs(fmt.Sprintf("has %d×%d pixels, where %d×%d are to be written", found.Height, found.Width, p.Height, p.Width))
	}
	if !bytes.Equal(found.Pixels, p.Pixels) {
		return differs("has other pixels than are to be written")
	}
	theirs, ours := textChunks(data), p.chunks()
	if !slices.EqualFunc(theirs, ours, bytes.Equal) {
		return differs("has the same pixels, and other texts" + firstText(theirs, ours) + " than are to be written")
	}
	return nil
}

// maxPNGText is how much longer a file may be than the pixels of its image.
const maxPNGText = 1 << 20

// firstText names the first text in which two files differ.
func firstText(theirs, ours [][]byte) string {
	for i, chunk := range ours {
		if i >= len(theirs) || !bytes.Equal(theirs[i], chunk) {
			key, _, _ := bytes.Cut(chunk[4:], []byte{0})
			return fmt.Sprintf(" (%s)", key)
		}
	}
	return ""
}

// encode is the file.
func (p *PNGFile) encode() ([]byte, error) {
	picture := image.NewNRGBA(image.Rect(0, 0, p.Width, p.Height)) // an opaque one is written as RGB
	for i := range p.Height * p.Width {
		copy(picture.Pix[4*i:], p.Pixels[3*i:3*i+3])
		picture.Pix[4*i+3] = 255
	}
	var out bytes.Buffer
	if err := png.Encode(&out, picture); err != nil {
		return nil, fmt.Errorf("%s: %w", p.Path, err)
	}
	data := out.Bytes()
	var texts []byte
	for _, chunk := range p.chunks() {
		texts = binary.BigEndian.AppendUint32(texts, uint32(len(chunk)-4))
		texts = append(texts, chunk...)
		texts = binary.BigEndian.AppendUint32(texts, crc32.ChecksumIEEE(chunk))
	}
	return slices.Insert(data, pngHead, texts...), nil
}

// pngHead is the length of what every PNG file begins with: signature and IHDR.
const pngHead = 8 + 12 + 13

// chunks are the texts as chunks, type and data.
func (p *PNGFile) chunks() [][]byte {
	var all [][]byte
	for _, t := range p.Texts {
		t.Value = strings.ReplaceAll(t.Value, "\x00", "\ufffd") // which ends a text
		if strings.ContainsFunc(t.Value, func(c rune) bool { return c != '\n' && (c < ' ' || c > '~') }) {
			all = append(all, []byte("iTXt"+t.Key+"\x00\x00\x00\x00\x00"+strings.ToValidUTF8(t.Value, "\ufffd"))) // not compressed, of no language
		} else {
			all = append(all, []byte("tEXt"+t.Key+"\x00"+t.Value))
		}
	}
	return all
}

// textChunks are the texts of a PNG file as chunks, type and data; those before a
// chunk that is cut off.
func textChunks(data []byte) (all [][]byte) {
	for at := 8; at+12 <= len(data); {
		length := int64(binary.BigEndian.Uint32(data[at:]))
		if length > int64(len(data)-at-12) {
			return all
		}
		chunk := data[at+4 : at+8+int(length)]
		if kind := string(chunk[:4]); kind == "tEXt" || kind == "iTXt" {
			all = append(all, chunk)
		}
		at += 12 + int(length)
	}
	return all
}

// PreparePNGs makes a folder for files of the given names, and removes what processes
// that were killed left of them. others counts the files in it that have other names,
// hidden ones aside, and names one.
func PreparePNGs(folder string, names []string) (others int, one string, err error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return 0, "", ExplainWrite(folder, err)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return 0, "", err
	}
	known := make(map[string]bool, len(names))
	for _, n := range names {
		known[n] = true
	}
	for _, e := range entries {
		name := e.Name()
		switch {
		case known[name]:
		case !strings.HasPrefix(name, "."):
			if others++; one == "" {
				one = name
			}
		case leftover.MatchString(name) && e.Type().IsRegular() && known[strings.TrimPrefix(name[:strings.LastIndexByte(name, '.')], ".")]:
			if err := os.Remove(filepath.Join(folder, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return 0, "", err
			}
		}
	}
	return others, one, nil
}
