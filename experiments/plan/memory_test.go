package plan

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"sagbench/internal/tiny"
	"sagbench/models"
)

// A trace that no memory holds is refused before anything is drawn.
func TestLargeTrace(t *testing.T) {
	for setting, want := range map[string]string{
		"trace={images: 64, steps: 64}": `row "s=0.5": trace: 64 images of 256×256 pixels at 64 steps take 21.7 GB of memory, expected at most 4.3 GB; ask for fewer`,
		"trace={images: 4, steps: 3}":   "",
	} {
		e, err := Load(tiny.Experiment(t, t.TempDir()), []string{setting, "model.image_size=256", "sweep=!replace {guidance.sag.scale: [0.5]}"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = e.Forecast(t.Context(), t.TempDir(), nil)
		if got := fmt.Sprint(err); want != "" && got != want || want == "" && err != nil {
			t.Errorf("%s: %v", setting, err)
		}
	}
}

// A checkpoint that is too small for its flags is told from its size.
func TestTooSmallCheckpoint(t *testing.T) {
	e, err := Load(tiny.Experiment(t, t.TempDir()), []string{"model.num_channels=1024"})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(e.CheckInputs(t.Context())); !strings.Contains(got, "adm-cond.pt with its ") || !strings.Contains(got, "cannot hold; sagbench inspect") {
		t.Error(got)
	}
}

// A network that cannot be is refused by its flags alone, with their line.
func TestSizesOfNetworks(t *testing.T) {
	for _, c := range []struct{ flags, want string }{
		{"num_res_blocks=10000", "num_res_blocks: is 10000, expected 1 to 64"},
		{"num_res_blocks=1000000000", "num_res_blocks: is 1000000000, expected 1 to 64"},
		{"num_res_blocks=9223372036854775807", "num_res_blocks: is 9223372036854775807, expected 1 to 64"},
		{"num_channels=67108864", "num_channels: is 67108864, expected 1 to 8192"},
		{"channel_mult=1,1,999999", "level 2 has "},
		{"num_channels=8192", "parameters"},
		{"channel_mult=512,512,512", "parameters"},
		{"image_size=4096 model.attention_resolutions=4096 batch=4096", "for a batch of "},
	} {
		file := tiny.Experiment(t, t.TempDir())
		overrides := strings.Fields("model." + c.flags + " samples=5000")
		_, err := Load(file, overrides)
		if got := fmt.Sprint(err); !strings.Contains(got, c.want) || len(got) > 2000 {
			t.Errorf("%s: %s, want %q", c.flags, got, c.want)
		}
	}
}

// A network whose sizes lie beside its weights is refused as well.
func TestSizesOfFolders(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sdxl.yaml")
	tiny.Write(t, path, fmt.Sprintf("name: sdxl\nsamples: 5000\nmetrics: []\nsampler: {euler: {steps: 2}}\nprompts: [a bag]\nmodel: {family: sdxl, checkpoint: %q}\n",
		filepath.Join(tiny.Root(), "experiments/refcase/testdata/cases/sample-sdxl-cfg/model")))
	if _, err := Load(path, nil); err != nil {
		t.Error(err)
	}
	_, err := Load(path, []string{"model.height=4096", "model.width=4096", "batch=4096"})
	if got := fmt.Sprint(err); !strings.Contains(got, "sdxl.yaml:6: model: the flags, or the configuration of the checkpoint, describe a network of 496,651 parameters") || !strings.Contains(got, "for a batch of 4096 images") {
		t.Error(got)
	}
}

func TestFits(t *testing.T) {
	var n NetworkRef
	for _, c := range []struct {
		size   models.Size
		batch  int
		memory float64
		want   string
	}{
		{models.Size{Parameters: 1e6, Activation: 1e6}, 10, 14e6, ""},
		{models.Size{Parameters: 1e6, Activation: 1e6}, 11, 14e6, "1,000,000 parameters, 4.0 MB as float32, of which one value takes 11.0 MB for a batch of 11 images; this machine has 14.0 MB"},
		{models.Size{Parameters: 1e40}, 1, 1e12, "parameters"},
	} {
		if got := fmt.Sprint(n.fits(c.size, c.batch, c.memory)); c.want == "" && got != "<nil>" || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %s", c, got)
		}
	}
	if m := MachineMemory(); m < 1e8 || m > 1e15 {
		t.Errorf("this machine has %g bytes of memory", m)
	}
}
