// Package families is the table of all families of networks, and asks them
// whose a checkpoint is.
package families

import (
	"maps"
	"slices"
	"strings"

	"sagbench/models"
	"sagbench/models/checkpoint"
	"sagbench/models/features"
	"sagbench/models/sd"
)

// Table maps a family's name in a model block to its defaults. Feature networks
// are families as well.
var Table = withFeatureNetworks(map[string]func() models.Family{
	"adm":         func() models.Family { return models.NewADM() },
	"classifier":  func() models.Family { return models.NewClassifier() },
	"clip_text":   func() models.Family { return &sd.CLIPText{} },
	"clip_vision": func() models.Family { return &features.CLIPVision{} },
	"dit":         func() models.Family { return models.NewDiT() },
	"dit2d":       func() models.Family { return &sd.DiT2D{} },
	"edm":         func() models.Family { return models.NewEDM() },
	"edm2":        func() models.Family { return models.NewEDM2() },
	"iddpm":       func() models.Family { return models.NewIDDPM() },
	"sd":          func() models.Family { return &sd.SD{} },
	"sdxl":        func() models.Family { return sd.NewSDXL() },
	"sit":         func() models.Family { return models.NewSiT() },
	"unet2d":      func() models.Family { return &sd.UNet2D{} },
	"vae":         func() models.Family { return &sd.VAE{} },
})

func withFeatureNetworks(table map[string]func() models.Family) map[string]func() models.Family {
	for _, n := range features.Networks {
		table[n.Name] = func() models.Family { return n.New() }
	}
	return table
}

// Guess asks every family whether a checkpoint is one of its own.
func Guess(f *checkpoint.File) []models.Guess {
	var found []models.Guess
	for _, name := range slices.Sorted(maps.Keys(Table)) {
		var g models.Guess
		ok := false
		switch family := Table[name]().(type) {
		case models.FileGuesser:
			g, ok = family.GuessFile(f)
		case models.Guesser:
			g, ok = family.Guess(f.Tensors)
		}
		if ok {
			g.Family, g.Block = name, blockOf(name)
			found = append(found, g)
		}
	}
	return found
}

// blockOf is where an experiment has the block of a network of the family, dotted:
// that of the guidance of a classifier, say.
func blockOf(family string) string {
	switch {
	case family == "classifier":
		return "guidance.classifier.model"
	case family == "vae":
		return "model.vae"
	case slices.ContainsFunc(features.Networks, func(n features.Network) bool { return n.Name == family }):
		return family
	}
	return "model"
}

// GuessFolder asks every family whether a folder is one of its checkpoints. A
// guess comes with what is wrong with the folder, and with the files that the
// network is made of.
func GuessFolder(path string) (found []models.Guess, files []string) {
	for _, name := range slices.Sorted(maps.Keys(Table)) {
		family, ok := Table[name]().(models.FolderGuesser)
		if !ok {
			continue
		}
		g, ok := family.GuessFolder(path)
		if !ok {
			continue
		}
		g.Family, g.Block = name, blockOf(name)
		of, err := models.Files(family, path)
		if err == nil {
			files = append(files, of...)
			var m models.Model
			if m, err = family.Open(path, models.Options{}); err == nil {
				m.Close()
			}
		}
		g.Mismatches = faultLines(err)
		found = append(found, g)
	}
	return found, files
}

// faultLines are the first lines of an error.
func faultLines(err error) []string {
	if err == nil {
		return nil
	}
	lines := strings.Split(err.Error(), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(strings.TrimSpace(l), "models: ")
	}
	return models.FirstFew(lines)
}
