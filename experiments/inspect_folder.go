package main

import (
	"fmt"
	"io"
	"path/filepath"

	"sagbench/models"
)

// A folderInspection is what inspect tells of a folder.
type folderInspection struct {
	Folder  string         `json:"folder"`
	Files   []inspection   `json:"files"` // of the weights that the network is made of
	Guesses []models.Guess `json:"guesses"`
}

func inspectFolder(path string, all bool) (folderInspection, error) {
	in := folderInspection{Folder: path}
	var files []string
	in.Guesses, files = models.GuessFolder(path)
	for _, f := range files {
		switch filepath.Ext(f) {
		case ".safetensors", ".bin":
			one, err := inspectFile(f, all)
			if err != nil {
				return in, err
			}
			one.Guesses = nil // the folder's say more
			in.Files = append(in.Files, one)
		}
	}
	return in, nil
}

func (in folderInspection) print(w io.Writer) {
	fmt.Fprintf(w, "%s, a folder\n", in.Folder)
	for _, f := range in.Files {
		name, err := filepath.Rel(in.Folder, f.File)
		if err != nil {
			name = f.File
		}
		fmt.Fprintf(w, "  %s\n    format      %s\n    sha256      %s\n    tensors     %d of %s\n    parameters  %s\n",
			name, f.Format, f.SHA256, f.Tensors, f.types(), thousands(f.Parameters))
		f.printShapes(w)
	}
	printGuesses(w, in.Folder, in.Guesses)
}
