package checkpoint

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// bytesOf is a bytes object.
func bytesOf(data []byte) code {
	return code(append(binary.LittleEndian.AppendUint32([]byte{'B'}, uint32(len(data))), data...))
}

// ownStorage is a storage of n float32 as a file of torch.save within the pickle.
func ownStorage(n int) reduce {
	file := append(legacyHead(true), pickled(storageID("FloatStorage", "7", n))...)
	file = append(file, pickled(list{"7"})...)
	file = append(binary.LittleEndian.AppendUint64(file, uint64(n)), rampBytes(n)...)
	return reduce{global{"torch.storage", "_load_from_bytes"}, tuple{bytesOf(file)}}
}

// parameter is a torch.nn.Parameter of 4 elements.
func parameter() reduce {
	return reduce{global{"torch._utils", "_rebuild_parameter"}, tuple{tensorV2(ownStorage(4), 0, ints(4), ints(1)), true, orderedDict}}
}

// persistentObject is an object as torch_utils.persistence pickles it.
func persistentObject(class string, state pairs) reduce {
	return reduce{global{"torch_utils.persistence", "_reconstruct_persistent_obj"}, tuple{pairs{
		{"type", "class"}, {"version", 6}, {"module_src", "import os; os.abort()"}, {"class_name", class}, {"state", state},
	}}}
}

// made is an object of a class by NEWOBJ.
func made(class global, args ...any) code {
	var b bytes.Buffer
	emit(&b, class)
	emit(&b, tuple(args))
	return code(b.String() + "\x81")
}

// persistentNetwork is a network with a module in a ModuleDict.
func persistentNetwork() reduce {
	float8 := build{made(global{"numpy", "dtype"}, "f8", false, true), tuple{3, "<", nil, nil, nil, -1, -1, 0}}
	half := binary.LittleEndian.AppendUint64(nil, math.Float64bits(math.Sqrt(.5)))
	conv := persistentObject("Conv2d", pairs{
		{"_parameters", filled{orderedDict, pairs{{"weight", parameter()}, {"bias", nil}}}},
		{"_buffers", pairs{{"resample_filter", tensorV2(ownStorage(4), 0, ints(4), ints(1))}, {"hidden", tensorV2(ownStorage(4), 0, ints(4), ints(1))}}},
		{"_non_persistent_buffers_set", list{"hidden"}}, {"_modules", pairs{}},
		{"skip_scale", reduce{global{"numpy.core.multiarray", "scalar"}, tuple{float8, bytesOf(half)}}},
	})
	return persistentObject("EDMPrecond", pairs{
		{"_parameters", pairs{}}, {"_buffers", pairs{{"u", tensorV2(ownStorage(4), 0, ints(2, 2), ints(1, 2))}}},
		{"_modules", pairs{{"enc", build{made(global{"torch.nn.modules.container", "ModuleDict"}), pairs{{"_modules", pairs{{"8x8_conv", conv}}}}}}, {"none", nil}}},
		{"_init_args", tuple{}}, {"_init_kwargs", pairs{{"channel_mult", list{1, 2}}, {"dropout", .5}, {"model_type", "SongUNet"}, {"use_fp16", true}, {"init", pairs{}}}},
		{"sigma_max", math.Inf(1)}, {"training", false},
	})
}

// stability is an encoder with an array.
func stability() reduce {
	float4 := build{made(global{"numpy", "dtype"}, "f4", false, true), tuple{3, "<", nil, nil, nil, -1, -1, 0}}
	array := reduce{global{"numpy._core.multiarray", "_reconstruct"}, tuple{global{"numpy", "ndarray"}, ints(0), bytesOf([]byte("b"))}}
	return persistentObject("StabilityVAEEncoder", pairs{{"_vae", nil}, {"scale", build{array, tuple{1, ints(4), float4, false, bytesOf(rampBytes(4))}}}})
}

func TestPersistent(t *testing.T) {
	easy := made(global{"dnnlib.util", "EasyDict"})
	network := persistentNetwork()
	for name, object := range map[string]any{
		"dict":     pairs{{"ema", network}, {"encoder", stability()}, {"dataset_kwargs", pairs{{"path", "x"}}}},
		"EasyDict": filled{easy, pairs{{"encoder", stability()}, {"ema", network}}},
	} {
		data := pickled(object)
		f, err := parseBytes(data)
		if err != nil {
			t.Fatal(name, err)
		}
		if f.Format != Persistent || f.Wrapper != "ema" || f.Prefix != "" {
			t.Errorf("%s: %+v", name, f)
		}
		if want := []string{"enc.8x8_conv.resample_filter", "enc.8x8_conv.weight", "u"}; !slices.Equal(f.Tensors.Names(), want) {
			t.Errorf("%s: tensors %v, want %v", name, f.Tensors.Names(), want)
		}
		checkValues(t, "weight", f.Tensors["enc.8x8_conv.weight"], []float64{-1, -.75, -.5, -.25})
		checkValues(t, "u", f.Tensors["u"], []float64{-1, -.5, -.75, -.25})
		if w := f.Tensors["enc.8x8_conv.weight"]; w.Raw != nil || !bytes.Equal(data[w.Offset:w.Offset+16], rampBytes(4)) {
			t.Errorf("%s: the weight is at %d of the file, with a copy of %d bytes", name, w.Offset, len(w.Raw))
		}
		want := map[string]Object{
			"ema": {Class: "EDMPrecond", Arguments: map[string]any{"channel_mult": []any{1, 2}, "dropout": .5, "model_type": "SongUNet", "use_fp16": true},
				Attributes: map[string]any{"sigma_max": math.Inf(1), "training": false}},
			"encoder": {Class: "StabilityVAEEncoder", Arguments: map[string]any{}, Attributes: map[string]any{"scale": []float64{-1, -.75, -.5, -.25}}},
		}
		if !reflect.DeepEqual(f.Objects, want) {
			t.Errorf("%s: objects %v, want %v", name, f.Objects, want)
		}
	}
	f, err := parseBytes(pickled(network))
	if err != nil || f.Wrapper != "" || f.Objects[""].Class != "EDMPrecond" || len(f.Tensors) != 3 {
		t.Errorf("a network alone: %+v, %v", f, err)
	}
}

// Whatever else such a pickle names is refused by that name, and a broken one by
// what is wrong.
func TestPersistentRefused(t *testing.T) {
	network, none := persistentNetwork(), pairs{}
	meta := func(key string, value any) reduce {
		return reduce{global{"torch_utils.persistence", "_reconstruct_persistent_obj"}, tuple{pairs{
			{"type", "class"}, {"version", 6}, {"class_name", "A"}, {"state", none}, {key, value}}}}
	}
	storage := func(file []byte) reduce {
		return reduce{global{"torch.storage", "_load_from_bytes"}, tuple{bytesOf(file)}}
	}
	scalar := func(args ...any) reduce { return reduce{global{"numpy.core.multiarray", "scalar"}, tuple(args)} }
	float8 := made(global{"numpy", "dtype"}, "f8", false, true)
	for name, c := range map[string]struct {
		object any
		want   string
	}{
		"a function":          {pairs{{"ema", network}, {"x", reduce{global{"os", "system"}, tuple{"true"}}}}, "it names os.system, which is not among"},
		"a class":             {pairs{{"ema", network}, {"x", made(global{"builtins", "object"})}}, "it names builtins.object"},
		"an extension":        {pairs{{"ema", network}, {"x", code("\x82\x07")}}, "it names copyreg extension"},
		"persistent id":       {pairs{{"ema", network}, {"x", storageID("FloatStorage", "0", 4)}}, "a persistent id"},
		"no type":             {pairs{{"ema", meta("type", "function")}}, `of type string "function"`},
		"another version":     {pairs{{"ema", meta("version", 5)}}, "version 5 of torch_utils.persistence, expected 6"},
		"no state":            {pairs{{"ema", meta("state", 3)}}, "state 3"},
		"not a dict":          {pairs{{"ema", reduce{global{"torch_utils.persistence", "_reconstruct_persistent_obj"}, tuple{3}}}}, "of type None"},
		"nothing":             {pairs{{"ema", reduce{global{"torch_utils.persistence", "_reconstruct_persistent_obj"}, tuple{}}}}, "with 0 arguments"},
		"state of a module":   {pairs{{"ema", build{made(global{"torch.nn.modules.container", "ModuleDict"}), 3}}}, "a state of ModuleDict that is a 3"},
		"a parameter":         {pairs{{"ema", persistentObject("A", pairs{{"_parameters", pairs{{"w", 3}}}})}}, "ema: w is a 3 where a tensor or a module is expected"},
		"a storage of text":   {pairs{{"ema", reduce{global{"torch.storage", "_load_from_bytes"}, tuple{"text"}}}}, "_load_from_bytes of string"},
		"an empty storage":    {pairs{{"ema", storage(nil)}}, "a storage, at byte"},
		"a storage of a dict": {pairs{{"ema", storage(legacyOf(pairs{{"w", 1}}))}}, "it is a dict of 1"},
		"a short storage":     {pairs{{"ema", storage(append(append(legacyHead(true), pickled(storageID("FloatStorage", "7", 9))...), pickled(list{"7"})...))}}, "truncated before storage"},
		"numpy's object":      {pairs{{"ema", network}, {"x", made(global{"numpy", "dtype"}, "O8", false, true)}}, `a numpy.dtype of string "O8"`},
		"numpy's big-endian":  {pairs{{"ema", network}, {"x", build{float8, tuple{3, ">", nil, nil, nil, -1, -1, 0}}}}, "big-endian"},
		"a short scalar":      {pairs{{"ema", network}, {"x", scalar(float8, bytesOf([]byte("abc")))}}, "3 bytes of numpy.dtype f8"},
		"no scalar":           {pairs{{"ema", network}, {"x", scalar(float8, "abc")}}, "a scalar of numpy"},
		"no array":            {pairs{{"ema", network}, {"x", build{made(global{"numpy", "ndarray"}), tuple{1, 2}}}}, "a state of numpy.ndarray"},
		"no tensors":          {pairs{{"encoder", persistentObject("StandardRGBEncoder", none)}}, "holds no state dict"},
		"no objects":          {pairs{{"a", 1}}, "the magic number is missing"},
	} {
		refused(t, name, pickled(c.object), c.want)
	}
	refused(t, "more behind", append(pickled(pairs{{"ema", network}}), 'x'), "1 bytes follow the pickle")
	refused(t, "a circle", pickled(pairs{{"ema", code(circular())}}), "more than 16 deep")
}

// circular is a ModuleDict with itself for a module.
func circular() string {
	class := string(made(global{"torch.nn.modules.container", "ModuleDict"}))
	return class + "q\x01}(X\x08\x00\x00\x00_modules}(X\x01\x00\x00\x00ah\x01uub"
}

// A few bytes can name a module again and again: the list of its tensors is bounded.
func TestPersistentSharing(t *testing.T) {
	class := string(made(global{"torch.nn.modules.container", "ModuleDict"}))
	module := class + "}(X\x0b\x00\x00\x00_parameters"
	var p bytes.Buffer
	emit(&p, pairs{{"w", parameter()}})
	module += p.String() + "ub"
	for range 14 {
		module = class + "}(X\x08\x00\x00\x00_modules}(" + "X\x01\x00\x00\x00a" + module + "q\x01"
		for _, name := range "bcdefghij" {
			module += "X\x01\x00\x00\x00" + string(name) + "h\x01"
		}
		module += "uub"
	}
	_, err := parseBytes(pickled(pairs{{"ema", code(module)}}))
	if err == nil || !strings.Contains(err.Error(), "the list of tensors needs") {
		t.Errorf("10¹⁴ names: %v", err)
	}
}

// The states that training writes beside the networks are named.
func TestTrainingStates(t *testing.T) {
	network := persistentObject("EDMPrecond", pairs{{"_parameters", pairs{{"w", ramp4("0")}}}})
	refused(t, "EDM", torchZipOf(pairs{{"net", network}, {"optimizer_state", pairs{{"state", pairs{}}}}}), "the state of a training of EDM", "network-snapshot-….pkl")
}

// FuzzPersistent reads a pickle of torch_utils.persistence.
func FuzzPersistent(f *testing.F) {
	for _, object := range []any{
		pairs{{"ema", persistentNetwork()}, {"encoder", stability()}, {"loss_fn", persistentObject("EDMLoss", pairs{{"P_mean", -1.2}})}},
		filled{made(global{"dnnlib.util", "EasyDict"}), pairs{{"ema", persistentNetwork()}}},
		persistentNetwork(), pairs{{"ema", code(circular())}}, pairs{{"a", 1}},
	} {
		f.Add(pickled(object))
	}
	official, err := os.ReadFile("../../experiments/refcase/testdata/cases/sample-edm2-autog/gnet.pkl") // the smallest
	if err != nil {
		f.Fatal(err)
	}
	f.Add(official)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<20 {
			return
		}
		m := &mapping{path: "memory.pkl", data: data}
		var file *File
		var err error
		within(t, len(data), func(b *budget) { file, err = parsePersistent(m, "", b) })
		if err != nil {
			return
		}
		for name, tensor := range file.Tensors {
			tensor.m = m
			file.Tensors[name] = tensor
		}
		examine(t, file)
	})
}
