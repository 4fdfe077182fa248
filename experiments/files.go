package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"syscall"

	"github.com/google/renameio/v2"
)

// writeWhole puts a file at path, and its folder if need be: the old content or
// all of the new is there, whatever happens, a power cut included.
func writeWhole(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return explainWrite(path, err)
	}
	err := renameio.WriteFile(path, data, 0o644, renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(0o644))
	return explainWrite(path, err)
}

// leftover matches the temporary names of files that were being written.
var leftover = regexp.MustCompile(`^\..*\d$`)

// removeLeftovers removes what a killed process was writing in a folder. Only
// the holder of the folder's lock may call it.
func removeLeftovers(folder string) error {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var faults []error
	for _, e := range entries {
		if e.Type().IsRegular() && leftover.MatchString(e.Name()) {
			faults = append(faults, os.Remove(filepath.Join(folder, e.Name())))
		}
	}
	return errors.Join(faults...)
}

// explainWrite says what to do about the errors of a disk.
func explainWrite(path string, err error) error {
	hint := ""
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC):
		hint = "the disk is full; free some space and run the same command again, it goes on where it stopped"
	case errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		hint = "a limit on the size of files is reached; raise it and run the same command again, it goes on where it stopped"
	case errors.Is(err, syscall.EROFS), errors.Is(err, os.ErrPermission):
		hint = "the folder cannot be written to; choose another with --results"
	default:
		return fmt.Errorf("%s cannot be written: %w", path, err)
	}
	return fmt.Errorf("%s cannot be written: %s; nothing half written is left (%w)", path, hint, err)
}
