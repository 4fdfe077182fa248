package main

import (
	"os"
	"path/filepath"
	"regexp"

	"sagbench/configs"
)

// An inputPath is a file that an experiment reads. ${NAME} stands for an
// environment variable. A path is relative to the folder of the YAML file that
// names it if there is such a file, or else to the working directory.
type inputPath struct {
	Written string   // as it stands in the YAML file; "" = no path was given
	Path    string   // to open
	At      string   // file:line of the key
	Unset   []string // variables of Written that are not set
}

var (
	variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)
	atLine   = regexp.MustCompile(`:[0-9]+$`)
)

// pathAt finds the file that is meant by what is written at a path of a block.
func pathAt(b configs.Block, path string) inputPath {
	found, _ := b.At(path)
	return pathOf(found)
}

// pathOf is the file that is meant by what is written in a block.
func pathOf(found configs.Block) inputPath {
	written, _ := found.Text()
	p := inputPath{Written: written, At: found.Position()}
	p.Path = variable.ReplaceAllStringFunc(written, func(v string) string {
		name := variable.FindStringSubmatch(v)[1]
		if value := os.Getenv(name); value != "" {
			return value
		}
		p.Unset = append(p.Unset, name)
		return v
	})
	if filepath.IsAbs(p.Path) || p.Path == "" {
		return p
	}
	if file := atLine.ReplaceAllString(p.At, ""); file != p.At {
		if beside := filepath.Join(filepath.Dir(file), p.Path); exists(beside) {
			p.Path = beside
		}
	}
	return p
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
