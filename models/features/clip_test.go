package features

import (
	"math"
	"slices"
	"strings"
	"testing"

	"sagbench/internal/tiny"
	"sagbench/models"
	"sagbench/models/ort"
)

func openTinyCLIP(t *testing.T) *clipNet {
	t.Helper()
	n, err := (&CLIP{}).open(tiny.CLIP(t), models.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

// An embedding does not depend on how far its text is filled up, nor on the others; of a
// text that is too long it is that of the begin token for torchmetrics.
func TestCLIPTexts(t *testing.T) {
	n := openTinyCLIP(t)
	texts := []string{"a dog", strings.Repeat("a cat on a mat ", 5), strings.Repeat("a very long story ", 40), "a dog", strings.Repeat("another long story ", 50)}
	done := 0
	for name, form := range TextForms {
		ids, cut, err := n.TextIDs(texts, form)
		if err != nil || cut != 2 || !slices.Equal(ids.Shape, []int{5, 77}) {
			t.Fatalf("%s: %d are cut, ids %v, %v", name, cut, ids.Shape, err)
		}
		got, err := n.Texts(t.Context(), texts, form, func(more int) { done += more })
		if err != nil {
			t.Fatal(err)
		}
		whole, err := n.texts.Embed(t.Context(), ids)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range got.Data {
			if math.Abs(float64(v-whole.Data[i])) > 1e-5 {
				t.Fatalf("%s: value %d is %g, of texts of full length %g", name, i, v, whole.Data[i])
			}
		}
		if !slices.Equal(got.Row(0), got.Row(3)) {
			t.Errorf("%s: one text has two embeddings", name)
		}
		if same := slices.Equal(got.Row(2), got.Row(4)); same == form.KeepEnd {
			t.Errorf("%s: embeddings of two long texts are equal: %v", name, same)
		}
	}
	if done != len(TextForms)*len(texts) {
		t.Errorf("%d texts were told of", done)
	}
	if got, want := TextForms["jmhessel"].of("  A &amp;amp; B\n"), "A photo depicts A & B"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestCLIPExtractor(t *testing.T) {
	n := openTinyCLIP(t)
	if n.Width() != 24 || !slices.Equal(n.InputShape(), []int{3, 32, 32}) || n.Name() != "2 blocks of width 32 at 32 pixels" {
		t.Errorf("%d features of %v, %s", n.Width(), n.InputShape(), n.Name())
	}
	images := models.Images{N: 2, Height: 32, Width: 40, Pixels: make([]uint8, 2*32*40*3)}
	for i := range images.Pixels {
		images.Pixels[i] = uint8(i * 7)
	}
	out, err := n.Forward(t.Context(), map[string]ort.Array{"images": {Shape: []int{2, 32, 40, 3}, Data: images.Pixels}})
	if err != nil {
		t.Fatal(err)
	}
	pool, err := Of(t.Context(), n, CLIPCrop, images, Pool)
	if err != nil || !slices.Equal(pool[Pool].Tensor().Data, out["image_embeds"].Tensor().Data) {
		t.Errorf("features are not image_embeds, %v", err)
	}
	all, err := n.Forward(t.Context(), map[string]ort.Array{"pixels": out["pixels"]})
	if err != nil || !slices.Equal(all["model"].Shape, []int{2, 17, 32}) {
		t.Errorf("%v, %v", all["model"].Shape, err)
	}
	for i, v := range all["image_embeds"].Tensor().Data { // the last block of all tokens, not of the class token alone
		if math.Abs(float64(v-pool[Pool].Tensor().Data[i])) > 1e-5 {
			t.Errorf("value %d is %g with all tokens, %g without", i, v, pool[Pool].Tensor().Data[i])
		}
	}
	if _, err := n.Forward(t.Context(), map[string]ort.Array{"pixels": ort.Floats(out["pixels"].Tensor().Slice(0, 1)), "x": {}}); err != nil {
		t.Error(err)
	}
	if _, err := n.Run(t.Context(), out["pixels"].Tensor(), Logits); err == nil || !strings.Contains(err.Error(), `has no output "logits"`) {
		t.Error(err)
	}
	if _, err := n.Forward(t.Context(), map[string]ort.Array{"pixels": {Shape: []int{1, 3, 8, 8}, Data: make([]float32, 192)}}); err == nil || !strings.Contains(err.Error(), "expected float32 [N,3,32,32]") {
		t.Error(err)
	}
	if err := (&CLIP{HiddenAct: "relu"}).Validate(); err == nil {
		t.Error("hidden_act relu is accepted")
	}
	if _, err := (&CLIP{}).Open(t.TempDir(), models.Options{}); err == nil {
		t.Error("an empty folder is opened")
	}
}
