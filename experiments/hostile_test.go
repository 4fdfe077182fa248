package main

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sagbench/experiments/store"
	"sagbench/internal/tiny"
	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
)

// writeHostile writes a file of a test's folder and returns its path.
func writeHostile(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// repeated is the text of n items.
func repeated(format string, n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.Bytes()
}

// safetensorsFile is a file with a header and zeros for the data.
func safetensorsFile(header []byte, data int) []byte {
	return slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header, make([]byte, data))
}

// emptyImages is an archive of n entries that are called images and hold nothing.
func emptyImages(t *testing.T, n int) []byte {
	files := map[string][]byte{}
	for i := range n {
		files[fmt.Sprintf("%06d.png", i)] = nil
	}
	return zipped(t, files)
}

// zipped is an archive of files, as they are.
func zipped(t *testing.T, files map[string][]byte) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		entry, err := w.CreateHeader(&zip.FileHeader{Name: name})
		if err == nil {
			_, err = entry.Write(files[name])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// swollenArray is an .npz whose arr_0 claims n bytes in column-major order.
func swollenArray(t *testing.T, n int) []byte {
	header := fmt.Sprintf("{'descr': '|u1', 'fortran_order': True, 'shape': (%d, 256, 256, 3), }\n", n/256/256/3)
	array := append([]byte("\x93NUMPY\x01\x00"), byte(len(header)), 0)
	array = append(append(array, header...), make([]byte, 1<<20)...)
	var packed, b bytes.Buffer
	deflate, err := flate.NewWriter(&packed, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := deflate.Write(array); err != nil {
		t.Fatal(err)
	}
	if err := deflate.Close(); err != nil {
		t.Fatal(err)
	}
	w := zip.NewWriter(&b)
	entry, err := w.CreateRaw(&zip.FileHeader{
		Name: "arr_0.npy", Method: zip.Deflate, CRC32: 1,
		CompressedSize64: uint64(packed.Len()), UncompressedSize64: uint64(10 + len(header) + n/256/256/3*256*256*3),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := entry.Write(packed.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Whatever a file claims, the program ends with a short message that names the file
// and the place, within 1 GB of memory.
func TestHostileInputs(t *testing.T) {
	experiment := tiny.Experiment(t, t.TempDir())
	text, err := os.ReadFile(experiment)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, data ...[]byte) string { return writeHostile(t, name, slices.Concat(data...)) }
	against := func(samples string, more ...string) []string {
		return slices.Concat([]string{"eval", tiny.Reference(), samples}, embeddedInception, more)
	}
	broken := t.TempDir()
	for i := range 300 {
		if err := os.WriteFile(filepath.Join(broken, fmt.Sprintf("%03d-%s.png", i, strings.Repeat("a", 100))), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	results := t.TempDir()
	metrics := filepath.Join(results, "row")
	if err := os.Mkdir(metrics, 0o700); err != nil {
		t.Fatal(err)
	}
	score := `{"format": %d, "scores": [{"name": "fid", "title": "FID", "value": 1, "direction": "lower", "decimals": 1000000000}]}`
	if err := os.WriteFile(filepath.Join(metrics, "metrics.json"), fmt.Appendf(nil, score, store.MetricsFormat), 0o600); err != nil {
		t.Fatal(err)
	}
	entry := `"t%07d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},`
	tensors := slices.Concat([]byte("{"), repeated(entry, 1_000_000), []byte(`"z":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}`))
	metadata := slices.Concat([]byte(`{"__metadata__":{`), repeated(`"k%07d":"v",`, 3_000_000), []byte(`"z":""}}`))
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"unknown keys":      {[]string{"plan", write("unknown.yaml", text, repeated("key%05d: 1\n", 80_000))}, []string{"unknown.yaml:", "unknown key", "key00000", "80000"}},
		"sources":           {[]string{"plan", write("sources.yaml", text, []byte("sources:\n"), repeated("  f%05d: {page: x, sise: 1}\n", 30_000))}, []string{"sources.yaml:", "sise"}},
		"a million tensors": {[]string{"inspect", write("tensors.safetensors", safetensorsFile(tensors, 0))}, []string{"tensors.safetensors", "safetensors header", "100000 keys"}},
		"metadata":          {[]string{"inspect", write("metadata.safetensors", safetensorsFile(metadata, 0))}, []string{"metadata.safetensors", "100000 keys"}},
		"empty entries":     {against(write("empty.zip", emptyImages(t, 300_000))), []string{"empty.zip", "000000.png", "more"}},
		"skipped entries":   {against(write("skipped.zip", emptyImages(t, 300_000)), "--skip-broken"), []string{"skipped.zip", "every image is broken", "000000.png"}},
		"as an npz":         {against(write("empty.npz", emptyImages(t, 300_000))), []string{"empty.npz", "300000 entries"}},
		"swollen array":     {against(write("swollen.npz", swollenArray(t, 920<<20))), []string{"swollen.npz", "arr_0", "deflated"}},
		"decimals":          {[]string{"table", results}, []string{"metrics.json", "1000000000 decimals"}},
		"broken images":     {against(broken), []string{filepath.Base(broken), "300 of 300 images", "000-aaa", "288 more"}},
		"long name":         {[]string{"plan", experiment, "name=" + strings.Repeat("x", 256)}, []string{"override", "name has 256 letters"}},
		"long name in file": {[]string{"run", write("named.yaml", bytes.Replace(text, []byte("name: tiny"), []byte("name: "+strings.Repeat("x", 256)), 1))}, []string{"named.yaml:1: name has 256"}},
		"input size":        {against(tiny.Reference(), "--input-size", "2000"), []string{"input_size: is 2000, expected 0 to 1024"}},
		"flag":              {against(tiny.Reference(), "--bootstrap", "9223372036854775807"), []string{"--bootstrap", "from 0 to 100000"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refused(t, c.want, c.args...)
		})
	}
}

// graphFile is an .onnx file whose features are the mean of each channel of images of
// a shape.
func graphFile(t *testing.T, shape ...int) string {
	m, err := onnx.Build(nil, func(m *onnx.Module) {
		m.Output("mean", m.Mean(m.Input("x", checkpoint.F32, shape...), 2, 3))
	})
	if err != nil {
		t.Fatal(err)
	}
	return writeHostile(t, "graph.onnx", m.Proto)
}

// The same of the files of a network of the user's own, and of a reference case, whose
// message stands beside the case.
func TestHostileNetworksAndCases(t *testing.T) {
	network := func(path string, more ...string) []string {
		return slices.Concat([]string{"eval", tiny.Reference(), tiny.Reference(), "--network", path, "--range", "unit"}, more)
	}
	var files, nested []byte
	for i := range 2000 { // weights in as many files
		location := fmt.Appendf(nil, "\x0a\x08location\x12\x04%04d", i)
		tensor := slices.Concat([]byte{13<<3 | 2, byte(len(location))}, location)
		files = slices.Concat(files, []byte{5<<3 | 2, byte(len(tensor))}, tensor)
	}
	files = slices.Concat(binary.AppendUvarint([]byte{7<<3 | 2}, uint64(len(files))), files)
	for i := range 3000 { // a graph in an attribute of a node of a graph
		field := []byte{1, 5, 6}[i%3]
		nested = slices.Concat([]byte{field<<3 | 2}, binary.AppendUvarint(nil, uint64(len(nested))), nested)
	}
	nested = slices.Concat(binary.AppendUvarint([]byte{7<<3 | 2}, uint64(len(nested))), nested)
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"large calls": {network(graphFile(t, 256, 3, 512, 512)), []string{"graph.onnx", "x [256,3,512,512]", "expected at most"}},
		"large image": {network(graphFile(t, onnx.Batch, 3, 1<<20, 1<<20)), []string{"graph.onnx", "at most 4096 pixels"}},
		"open size":   {network(graphFile(t, onnx.Batch, 3, -2, -3), "--input-size", "4096"), []string{"graph.onnx", "expected at most"}},
		"many files":  {network(writeHostile(t, "files.onnx", files)), []string{"files.onnx", "more than 1000 files"}},
		"nested":      {network(writeHostile(t, "nested.onnx", nested)), []string{"nested.onnx"}},
		"zeros":       {network(writeHostile(t, "zeros.onnx", make([]byte, 64<<20))), []string{"zeros.onnx"}},
		"small parts": {network(writeHostile(t, "parts.onnx", bytes.Repeat([]byte{7<<3 | 2, 0}, 32<<20))), []string{"parts.onnx"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refused(t, c.want, c.args...)
		})
	}
	valid := "kind: schedule\ntolerance: {relative: 1}\nmodel: {family: schedule, scheduler: scheduler_config.json}\nsteps: 2\n"
	empty := string(safetensorsFile([]byte("{}"), 0))
	entry := `"out.%07d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},`
	tensors := slices.Concat([]byte("{"), repeated(entry, 90_000), []byte(`"z":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}`))
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"text":     {map[string]string{"case.yaml": valid + string(repeated("note%07d: [1, 2, 3]\n", 1_000_000))}, "case.yaml: expected a file of at most"},
		"keys":     {map[string]string{"case.yaml": "kind: sample\ntolerance: {relative: 1}\nmodel: {family: adm, checkpoint: x}\nsampler: {ddpm: {" + string(repeated("a%05d: 1, ", 20_000)) + "}}\n", "io.safetensors": empty}, "case.yaml:4: sampler.ddpm: 20000 unknown keys"},
		"steps":    {map[string]string{"case.yaml": strings.Replace(valid, "steps: 2", "steps: 9223372036854775807", 1), "scheduler_config.json": `{"_class_name": "DDIMScheduler"}`, "io.safetensors": empty}, "steps"},
		"heads":    {map[string]string{"case.yaml": valid + "heads: 9223372036854775807\n"}, "heads: is 9223372036854775807, expected 0 to"},
		"anchors":  {map[string]string{"case.yaml": "a: &a [1, 2]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c]\ne: &e [*d, *d, *d, *d, *d, *d, *d, *d]\nf: &f [*e, *e, *e, *e, *e, *e, *e, *e]\ng: [*f, *f, *f, *f, *f, *f, *f, *f]\n"}, "case.yaml"},
		"prompts":  {map[string]string{"case.yaml": "kind: tokenize\ntolerance: {relative: 0}\nmodel: {family: clip_text, checkpoint: x}\n", "io.safetensors": empty, "prompts.json": strings.Repeat(" ", 17<<20)}, "prompts.json: expected a file of at most"},
		"trained":  {map[string]string{"case.yaml": valid, "scheduler_config.json": `{"num_train_timesteps": 1000000000000}`, "io.safetensors": empty}, "num_train_timesteps is 1000000000000, expected 1 to"},
		"unknown":  {map[string]string{"case.yaml": valid, "scheduler_config.json": "{" + string(repeated(`"a%05d": 1, `, 100_000)) + `"z": 1}`, "io.safetensors": empty}, `unknown field "a00000"`},
		"tensors":  {map[string]string{"case.yaml": "kind: evaluate\ntolerance: {relative: 1}\n", "io.safetensors": string(safetensorsFile(tensors, 0))}, "FAIL"},
		"in shape": {map[string]string{"case.yaml": valid, "scheduler_config.json": `{"_class_name": "DDIMScheduler"}`, "io.safetensors": string(safetensorsFile([]byte(`{"in.x_T":{"dtype":"F32","shape":[1000000000,0,1000000000],"data_offsets":[0,0]}}`), 0))}, "in.x_T has shape [1000000000 0 1000000000]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			for file, text := range c.files {
				tiny.Write(t, filepath.Join(folder, file), text)
			}
			p := bounded(t, "check", "--quiet", folder)
			if said := p.refusal(p.status(t)); said != "" || !strings.Contains(p.stdout.String(), c.want) {
				t.Errorf("no %q in %.2000s; %s", c.want, &p.stdout, said)
			}
		})
	}
}

// A number beyond its bounds is refused by plan and run, before anything is built.
func TestHostileNumbers(t *testing.T) {
	experiment := tiny.Experiment(t, t.TempDir())
	for _, setting := range []string{
		"model.num_res_blocks=10000", "model.num_res_blocks=9223372036854775807",
		"model.num_channels=67108864", "model.channel_mult=1,1,999999",
		"samples=1000000000", "samples=9223372036854775807",
		"inception.input_size=20000", "inception.input_size=9223372036854775807",
		"bootstrap=10000000", "bootstrap=9223372036854775807",
	} {
		for _, command := range []string{"plan", "run"} {
			key := setting[strings.LastIndexByte(setting[:strings.IndexByte(setting, '=')], '.')+1 : strings.IndexByte(setting, '=')]
			refused(t, []string{key}, command, experiment, setting, "--results", t.TempDir())
		}
	}
}

// A network whose configuration no machine can hold, or its checkpoint, is refused by
// plan and run before it is built.
func TestHostilePipelines(t *testing.T) {
	experiment := tiny.Experiment(t, t.TempDir())
	const cases = "refcase/testdata/cases/"
	for name, c := range map[string]struct {
		family, folder, file string
		changes              []string // of the file: old, new
		settings, want       []string
	}{
		"sd: wide U-Net":        {"sd", "../models/pretrained/sd", "unet/config.json", []string{"    64,\n    128", "65536, 65536"}, nil, []string{"override", "parameters", "of memory"}},
		"sd: wide autoencoder":  {"sd", "../models/pretrained/sd", "vae/config.json", []string{"    32,\n    64", "65536, 65536"}, nil, []string{"parameters", "of memory"}},
		"sd: wide text encoder": {"sd", "../models/pretrained/sd", "text_encoder/config.json", []string{`"vocab_size": `, `"vocab_size": 1000`, `"hidden_size": 64`, `"hidden_size": 65536`, `"intermediate_size": `, `"intermediate_size": 1`}, nil, []string{"parameters", "of memory"}},
		"sd: latents":           {"sd", "../models/pretrained/sd", "unet/config.json", []string{`"sample_size": 16`, `"sample_size": 65536`}, nil, []string{"one value takes", "of memory"}},
		"sd: images":            {"sd", "../models/pretrained/sd", "", nil, []string{"model.height=4096", "model.width=4096", "batch=4096", "samples=5000"}, []string{"one value takes", "batch of 4096 images"}},
		"sd: small file":        {"sd", "../models/pretrained/sd", "unet/config.json", []string{"    64,\n    128", "512, 1024"}, nil, []string{"which ", "cannot hold"}},
		"unet2d: wide":          {"unet2d", cases + "unet2d-cifar-tiny/model", "config.json", []string{"    16,\n    32,\n    32", "65536, 65536, 65536"}, nil, []string{"parameters", "of memory"}},
		"unet2d: images":        {"unet2d", cases + "unet2d-cifar-tiny/model", "config.json", []string{`"sample_size": 16`, `"sample_size": 65536`}, nil, []string{"one value takes", "of memory"}},
		"dit2d: deep":           {"dit2d", cases + "dit2d-tiny/model", "transformer/config.json", []string{`"num_layers": 2`, `"num_layers": 1024`, `"num_attention_heads": 2`, `"num_attention_heads": 1024`}, nil, []string{"parameters", "of memory"}},
		"dit2d: classes":        {"dit2d", cases + "dit2d-tiny/model", "transformer/config.json", []string{`"num_embeds_ada_norm": 10`, `"num_embeds_ada_norm": 16777216`, `"num_attention_heads": 2`, `"num_attention_heads": 1024`}, nil, []string{"parameters", "of memory"}},
		"dit: autoencoder":      {"dit", "../models/pretrained/sd/vae", "config.json", []string{"    32,\n    64", "65536, 65536"}, []string{"model.checkpoint=../models/pretrained/dit.pt", "model.vae=FOLDER", "model.depth=6", "model.hidden_size=128", "model.input_size=16", "model.num_classes=10", "model.num_heads=4"}, []string{"parameters", "of memory"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			if err := os.CopyFS(folder, os.DirFS(c.folder)); err != nil {
				t.Fatal(err)
			}
			for i := 0; i < len(c.changes); i += 2 {
				edit(t, filepath.Join(folder, c.file), c.changes[i], c.changes[i+1])
			}
			for _, command := range []string{"plan", "run"} {
				args := []string{command, experiment, "model=!replace {family: " + c.family + ", checkpoint: " + folder + "}", "guidance=!replace {}", "sweep=!replace {}", "--results", t.TempDir()}
				if c.family == "sd" {
					args = append(args, "prompts=[a coat]")
				}
				for _, s := range c.settings {
					args = append(args, strings.ReplaceAll(s, "FOLDER", folder))
				}
				refused(t, c.want, args...)
			}
		})
	}
}

// longest is the most bytes of a message about one bad input.
const longest = 2000

// mostTime is what any input may take: of a processor's time, since tests share the
// machine.
const mostTime = 10 * time.Second

// bounded starts the program with 1 GB of memory. What runs on after ten times the time
// that any input may take is killed.
func bounded(t *testing.T, args ...string) *process {
	t.Helper()
	p := program(args...)
	p.Env = append(p.Env, dataLimit+"=1000000000")
	p.start(t)
	stop := time.AfterFunc(10*mostTime, func() { p.Process.Kill() })
	t.Cleanup(func() { stop.Stop() })
	return p
}

// slow says that a process that ended took longer than any input may; "" if it did not.
func (p *process) slow() string {
	if used := p.ProcessState.UserTime() + p.ProcessState.SystemTime(); used > mostTime {
		return fmt.Sprintf("took %v of a processor's time, expected %v at most", used, mostTime)
	}
	return ""
}

// refusal says what is wrong with the end of a process that had to refuse its input
// within mostTime, with status 1 or 2 and one message below 2 kB; "" if nothing is.
func (p *process) refusal(status int) string {
	message := p.stderr.String()
	if said := p.slow(); said != "" {
		return said
	}
	if status != statusFailed && status != statusMisuse || strings.Count(message, "sagbench: ") != 1 || strings.Contains(message, "goroutine ") || len(message)+p.stdout.Len() > longest {
		return fmt.Sprintf("exit status %d and %d bytes, expected 1 or 2 and one short message: %.1000s%.3000s", status, len(message)+p.stdout.Len(), &p.stdout, message)
	}
	return ""
}

// refused runs the program, which has to refuse its input with a message that holds
// the wanted texts.
func refused(t *testing.T, want []string, args ...string) {
	t.Helper()
	p := bounded(t, args...)
	if said := p.refusal(p.status(t)); said != "" {
		t.Error(said)
	}
	for _, w := range want {
		if !strings.Contains(p.stderr.String(), w) {
			t.Errorf("the message lacks %q: %.1000s", w, &p.stderr)
		}
	}
}
