package sd

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"sagbench/models"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// prompts are those of a case's prompts.json.
func (c caseFile) prompts(t testing.TB) (positive, negative []string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(c.dir, "prompts.json"))
	if err != nil {
		t.Fatal(err)
	}
	var p struct {
		Prompts         []string `json:"prompts"`
		NegativePrompts []string `json:"negative_prompts"`
	}
	if err := json.Unmarshal(data, &p); err != nil {
		t.Fatal(err)
	}
	return p.Prompts, p.NegativePrompts
}

// TestSDSteps walks along recorded sampling loops: the text's embeddings, at
// every recorded state the prediction that the guidances make of two or three
// passes, the attention map, and the image that the last state is decoded to.
func TestSDSteps(t *testing.T) {
	for _, name := range []string{"sample-sd-cfg", "sample-sd-singlefile"} {
		t.Run(name, func(t *testing.T) {
			c := openCase(t, name)
			var opt models.Options
			if layer, ok := c.doc.At("guidance.sag.layer"); ok {
				text, _ := layer.Text()
				opt.Taps = []sampling.Tap{{Layer: text, Heads: int(c.number(t, "guidance.sag.heads"))}}
			}
			w := &walk{T: t, c: c, n: c.open(t, opt).(*Net), cfg: float32(c.number(t, "guidance.cfg.scale")), sag: float32(c.number(t, "guidance.sag.scale"))}
			w.texts()
			w.images(w.steps())
		})
	}
}

// A walk compares a network with one recorded loop.
type walk struct {
	*testing.T
	c          caseFile
	n          *Net
	cfg, sag   float32
	text, null sampling.Cond
}

func (w *walk) near(what string, got tensor.Tensor, want ort.Array, tolerance float64) {
	w.Helper()
	if e := relativeError(w, ort.Floats(got), want); !(e <= tolerance) {
		w.Errorf("%s: relative error %g, tolerance %g", what, e, tolerance)
	}
}

// texts encodes the prompts, or takes their recorded embeddings where the
// checkpoint has no tokenizer.
func (w *walk) texts() {
	positive, negative := w.c.prompts(w)
	recorded, recordedNull := w.c.array(w, "in.prompt_embeds"), w.c.array(w, "in.negative_prompt_embeds")
	w.text.Context, w.null.Context = recorded.Tensor(), recordedNull.Tensor()
	text, err := w.n.Encode(context.Background(), positive)
	if w.n.tokens[0] == nil {
		wantError(w, err, "model.ckpt holds no tokenizer, and its text encoder has other tokens")
		return
	}
	if err != nil {
		w.Fatal(err)
	}
	null, err := w.n.Encode(context.Background(), negative)
	if err != nil {
		w.Fatal(err)
	}
	w.near("prompt_embeds", text.Context, recorded, 2e-5)
	w.near("negative_prompt_embeds", null.Context, recordedNull, 2e-5)
	w.text, w.null = text, null
}

// steps returns the last state.
func (w *walk) steps() tensor.Tensor {
	states, eps := w.c.array(w, "out.x").Tensor(), w.c.array(w, "out.eps").Tensor()
	row := func(all tensor.Tensor, k int) tensor.Tensor { return tensor.Of(all.Row(k), all.Shape[1:]...) }
	x := w.c.array(w, "in.x_T").Tensor()
	for k, at := range w.c.array(w, "out.timesteps").Data.([]int64) {
		step := sampling.Timestep{Value: float64(at)}
		e, u := w.denoise(x, step, w.text), w.denoise(x, step, w.null)
		guided := e.Eps.Like()
		for i := range guided.Data {
			guided.Data[i] = u.Eps.Data[i] + w.cfg*(e.Eps.Data[i]-u.Eps.Data[i])
		}
		if w.sag > 0 {
			d := w.denoise(row(w.c.array(w, "out.degraded").Tensor(), k), step, w.null)
			for i := range guided.Data {
				guided.Data[i] += w.sag * (u.Eps.Data[i] - d.Eps.Data[i])
			}
			w.near("attention", u.Attn, ort.Floats(row(w.c.array(w, "out.attention").Tensor(), k)), 2e-5)
		}
		w.near("eps", guided, ort.Floats(row(eps, k)), 3e-5)
		x = row(states, k)
	}
	return x
}

func (w *walk) denoise(x tensor.Tensor, at sampling.Timestep, c sampling.Cond) sampling.Prediction {
	w.Helper()
	p, err := w.n.Denoise(context.Background(), x, at, c)
	if err != nil {
		w.Fatal(err)
	}
	return p
}

func (w *walk) images(x tensor.Tensor) {
	decoded, err := w.n.Decode(context.Background(), x)
	if err != nil {
		w.Fatal(err)
	}
	w.near("decoded", decoded, w.c.array(w, "out.decoded"), 2e-5)
	images, err := w.n.Pixels(context.Background(), x)
	if err != nil {
		w.Fatal(err)
	}
	want, err := w.c.tensors["out.images"].Float32()
	if err != nil {
		w.Fatal(err)
	}
	if s := []int{images.N, images.Height, images.Width, 3}; !slices.Equal(s, w.c.tensors["out.images"].Shape) {
		w.Fatalf("images %v, want %v", s, w.c.tensors["out.images"].Shape)
	}
	for i, v := range want {
		if math.Abs(float64(v)-float64(images.Pixels[i])) > 1 {
			w.Fatalf("pixel %d is %d, want %g", i, images.Pixels[i], v)
		}
	}
}
