package refcase

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sagbench/internal/fuzzing"
	"sagbench/models/checkpoint"
	"sagbench/models/ort"
)

// tensorsFile is an io.safetensors with tensors such as "in.x F32 2 3 8 8", one a
// line, whose data are repeated. It is refused where they take more than 256 KiB.
func tensorsFile(tensors string, data []byte) ([]byte, bool) {
	entries, size := map[string]any{}, 0
	for line := range strings.Lines(tensors) {
		var name, dtype string
		n, _ := fmt.Sscan(line, &name, &dtype)
		item, shape := checkpoint.DType(dtype).Size(), []int{}
		for _, field := range strings.Fields(line)[n:] {
			var d int
			fmt.Sscan(field, &d)
			shape = append(shape, d)
			if item *= d; d < 0 || item > 1<<18 {
				return nil, false
			}
		}
		if _, twice := entries[name]; !twice {
			entries[name] = map[string]any{"dtype": dtype, "shape": shape, "data_offsets": []int{size, size + item}}
			size += item
		}
	}
	header, err := json.Marshal(entries)
	if err != nil || size > 1<<18 || len(data) == 0 {
		return nil, false
	}
	return slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header, slices.Repeat(data, size/len(data)+1)[:size]), true
}

// A caseSeed is a small case: case.yaml, the tensors and their data, and the JSON
// beside them.
type caseSeed struct {
	text, tensors string
	data          []byte
	beside        string
}

// caseSeeds has one of each kind.
func caseSeeds() []caseSeed {
	model := "model: {family: adm, checkpoint: ADM, image_size: 16, num_channels: 32, num_res_blocks: 1, channel_mult: \"1,1\", learn_sigma: true, attention_resolutions: \"8\", use_scale_shift_norm: false}\n"
	zeros := []byte{0}
	metrics := "in.reference F32 20 2\nin.generated F32 20 2\nin.logits F32 20 2\nin.permutation I32 20\nin.subsets.sizes I32 2\nin.subsets.indices I32 5\nin.kid.generated I32 2 2\nin.kid.reference I32 2 2\n"
	for _, name := range []string{"fid.exact", "fid.adm", "fid.trace", "precision.adm", "recall.fp16", "precision.prdc.k2", "density.k2", "coverage.k2", "adm.radii_reference", "adm.distance", "kid.exact",
		"kid.subsets", "is.adm", "is.adm.split2", "is.torch_fidelity", "fid_infinity", "fid_infinity.fids"} {
		metrics += "out." + name + " F64 1\n"
	}
	return []caseSeed{
		{"kind: schedule\ntolerance: {relative: 1, rows: [out.x]}\nmodel: {family: schedule, scheduler: scheduler_config.json}\nsteps: 2\neta: 1\n", "in.eps F32 2 1 3 2 2\nin.x_T F32 1 3 2 2\nin.noise F32 2 1 3 2 2\nout.x F32 2 1 3 2 2\n", zeros, `{"_class_name": "DDIMScheduler", "num_train_timesteps": 10}`},
		{"kind: tokenize\ntolerance: {relative: 0}\nmodel: {family: clip_text, checkpoint: TOKENIZER}\n", "out.ids I64 2 77\n", zeros, `["a", "b"]`},
		{"kind: forward\ntolerance: {relative: 1}\nheads: 2\nlayer: output_blocks.1.1\n" + model, "in.x F32 1 3 16 16\nin.t I64 1\nout.model F32 1 6 16 16\nout.attention F32 1 64\n", zeros, ""},
		{"kind: sample\ntolerance: {relative: 1, per_tensor: {out.x: {nan: true}}}\nsampler: {ddpm: {steps: 1}}\n" + model, "in.x_T F32 1 3 16 16\nin.noise F32 1 1 3 16 16\nin.y I64 1\nout.x F32 1 1 3 16 16\n", zeros, ""},
		{"kind: evaluate\ntolerance: {relative: 1}\n", metrics, []byte{2, 0, 0, 0, 3, 0, 0, 0}, ""},
	}
}

// check runs a case.
func (c caseSeed) check(t *testing.T, w io.Writer) {
	file, ok := tensorsFile(c.tensors, c.data)
	if !ok {
		return
	}
	for name, path := range map[string]string{"TOKENIZER": "tokenize/model/tokenizer", "ADM": "adm-legacy-attention/model.pt"} {
		path, err := filepath.Abs(filepath.Join("testdata/cases", path))
		if err != nil {
			t.Fatal(err)
		}
		c.text = strings.ReplaceAll(c.text, name, path)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{"case.yaml": c.text, "io.safetensors": string(file), "scheduler_config.json": c.beside, "prompts.json": c.beside} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fuzzing.Bounded(t, 64<<10+len(c.text)+len(file)+len(c.beside), 1<<10, func() {
		_ = Check(t.Context(), w, []string{dir}, Options{Runtime: ort.Options{Threads: 1}})
	})
}

// A tensor of a case may have any shape and type: it is compared or refused.
func TestCasesOfAnyShape(t *testing.T) {
	for _, c := range caseSeeds() {
		var out strings.Builder
		c.check(t, &out)
		if !strings.Contains(out.String(), " tensors\n") {
			t.Errorf("%s", &out)
		}
		lines := strings.SplitAfter(c.tensors, "\n")
		for i, line := range lines[:len(lines)-1] {
			fields := strings.Fields(line)
			for _, other := range []string{"F32", "F32 0", "F32 2", "F32 2 0", "F32 0 3 16 16", "F32 1 3 0 16", "F32 2 3 16 16", "F32 2 1 3 2 2 1", "I64 1 3 16 16", "BOOL 1", fields[1] + " 1", "I32 0 1", "I32 5 1", "I64"} {
				changed := slices.Clone(lines)
				changed[i] = fields[0] + " " + other + "\n"
				c := c
				c.tensors = strings.Join(changed, "")
				t.Run(fields[0]+" "+other, func(t *testing.T) { c.check(t, io.Discard) })
			}
		}
	}
}

// FuzzCase: whatever the files of a case hold, it is compared or refused, in memory
// that is in proportion.
func FuzzCase(f *testing.F) {
	for _, c := range caseSeeds() {
		f.Add(c.text, c.tensors, c.data, c.beside)
	}
	f.Fuzz(func(t *testing.T, text, tensors string, data []byte, beside string) {
		caseSeed{text, tensors, data, beside}.check(t, io.Discard)
	})
}
