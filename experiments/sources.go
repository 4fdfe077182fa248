package main

import "path/filepath"

// The pages on which authors publish files.
const (
	checkpointsPage = "https://github.com/openai/guided-diffusion (README.md, \"Download pre-trained models\")"
	iddpmPage       = "https://github.com/openai/improved-diffusion (README.md, \"Models and Hyperparameters\")"
	ditPage         = "https://github.com/facebookresearch/DiT (README.md, download.py)"
	referencesPage  = "https://github.com/openai/guided-diffusion/tree/main/evaluations (README.md, \"Download batches\")"
	inceptionPage   = "https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights"
	dinov2Page      = "https://github.com/facebookresearch/dinov2 (README.md, \"Pretrained models\")"
)

// publishedFiles are the official files by name. Sizes are those of float32
// weights of the shapes that the flags ask for; where nobody states one, and the
// shapes do not tell, there is none.
var publishedFiles = map[string]Source{
	"64x64_classifier.pt":                  {Page: checkpointsPage},
	"64x64_diffusion.pt":                   {Page: checkpointsPage},
	"128x128_classifier.pt":                {Page: checkpointsPage},
	"128x128_diffusion.pt":                 {Page: checkpointsPage},
	"256x256_classifier.pt":                {Page: checkpointsPage},
	"256x256_diffusion.pt":                 {Page: checkpointsPage, Size: "about 2.2 GB"},
	"256x256_diffusion_uncond.pt":          {Page: checkpointsPage, Size: "about 2.2 GB"},
	"512x512_classifier.pt":                {Page: checkpointsPage},
	"512x512_diffusion.pt":                 {Page: checkpointsPage},
	"64_256_upsampler.pt":                  {Page: checkpointsPage},
	"128_512_upsampler.pt":                 {Page: checkpointsPage},
	"lsun_bedroom.pt":                      {Page: checkpointsPage, Size: "about 2.2 GB"},
	"lsun_cat.pt":                          {Page: checkpointsPage, Size: "about 2.2 GB"},
	"lsun_horse.pt":                        {Page: checkpointsPage, Size: "about 2.2 GB"},
	"lsun_horse_nodropout.pt":              {Page: checkpointsPage, Size: "about 2.2 GB"},
	"cifar10_uncond_50M_500K.pt":           {Page: iddpmPage, Size: "about 210 MB"},
	"cifar10_uncond_vlb_50M_500K.pt":       {Page: iddpmPage, Size: "about 210 MB"},
	"imagenet64_uncond_100M_1500K.pt":      {Page: iddpmPage, Size: "about 485 MB"},
	"imagenet64_uncond_vlb_100M_1500K.pt":  {Page: iddpmPage, Size: "about 485 MB"},
	"imagenet64_cond_270M_250K.pt":         {Page: iddpmPage, Size: "about 1.1 GB"},
	"lsun_uncond_100M_1200K_bs128.pt":      {Page: iddpmPage, Size: "about 455 MB"},
	"lsun_uncond_100M_2400K_bs64.pt":       {Page: iddpmPage, Size: "about 455 MB"},
	"DiT-XL-2-256x256.pt":                  {Page: ditPage, Size: "about 2.7 GB"},
	"DiT-XL-2-512x512.pt":                  {Page: ditPage, Size: "about 2.7 GB"},
	"VIRTUAL_lsun_bedroom256.npz":          {Page: referencesPage},
	"VIRTUAL_lsun_cat256.npz":              {Page: referencesPage},
	"VIRTUAL_lsun_horse256.npz":            {Page: referencesPage},
	"VIRTUAL_imagenet64_labeled.npz":       {Page: referencesPage},
	"VIRTUAL_imagenet128_labeled.npz":      {Page: referencesPage},
	"VIRTUAL_imagenet256_labeled.npz":      {Page: referencesPage},
	"VIRTUAL_imagenet512.npz":              {Page: referencesPage},
	"pt_inception-2015-12-05-6726825d.pth": {Page: inceptionPage, Size: "about 96 MB"},
	"dinov2_vitl14_pretrain.pth":           {Page: dinov2Page, Size: "about 1.2 GB"},
}

// sourceOf says where a file comes from: what the experiment says, or else what
// is known of the official files.
func (e *Experiment) sourceOf(path string) Source {
	name := filepath.Base(path)
	if s, ok := e.Sources[name]; ok {
		return s
	}
	return publishedFiles[name]
}
