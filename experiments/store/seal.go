package store

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
)

// NoChecksum stands for the checksum of a JSON file while it is computed.
var NoChecksum = strings.Repeat("0", 2*sha256.Size)

// Seal puts the sha256 of a JSON text in place of its last NoChecksum, which is the
// value of its last field; it returns the text and the sha256, in hexadecimal.
func Seal(data []byte) (sealed []byte, checksum string) {
	checksum = fmt.Sprintf("%x", sha256.Sum256(data))
	return replaceChecksum(data, NoChecksum, checksum), checksum
}

// CheckSeal is an error where a text that says of itself that it has a checksum is not
// the one that Seal returned.
func CheckSeal(data []byte, checksum string) error {
	if found := fmt.Sprintf("%x", sha256.Sum256(replaceChecksum(data, checksum, NoChecksum))); found != checksum {
		return fmt.Errorf("is damaged or was edited: its checksum says %.12s…, its content gives %.12s…", checksum, found)
	}
	return nil
}

// replaceChecksum puts one checksum in place of another's last occurrence.
func replaceChecksum(data []byte, old, new string) []byte {
	i := bytes.LastIndex(data, []byte(old))
	if i < 0 {
		return data
	}
	return slices.Concat(data[:i], []byte(new), data[i+len(old):])
}
