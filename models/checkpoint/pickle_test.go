package checkpoint

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// A pickle that would run a command and delete files in Python does nothing
// here, and the weights beside it are there.
func TestHarmless(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	made := victim + ".made"
	system := global{"posix", "system"}
	object := pairs{
		{"weight", ramp4("0")},
		{"a", reduce{system, tuple{"touch " + made}}},
		{"b", reduce{global{"os", "remove"}, tuple{victim}}},
		{"c", reduce{global{"builtins", "eval"}, tuple{"open('" + made + "','w')"}}},
		{"d", code("(S'touch " + made + "'\niposix\nsystem\n")},                // INST
		{"e", code("(cposix\nsystem\nS'touch " + made + "'\no")},               // OBJ
		{"f", code("cposix\nsystem\nS'touch " + made + "'\n\x85\x81")},         // NEWOBJ
		{"g", code("cposix\nsystem\nS'touch " + made + "'\n\x85}\x92")},        // NEWOBJ_EX
		{"h", build{reduce{system, tuple{}}, pairs{{"__setstate__", system}}}}, // BUILD
		{"i", code("X\x05\x00\x00\x00posixX\x06\x00\x00\x00system\x93)R")},     // STACK_GLOBAL
		{"j", code("\x82\x01)R")},                                              // EXT1
		{"k", reduce{reduce{global{"builtins", "getattr"}, tuple{global{"os", "system"}, "__call__"}}, tuple{"touch " + made}}},
		{"l", reduce{global{"copy_reg", "_reconstructor"}, tuple{global{"subprocess", "Popen"}, global{"__builtin__", "object"}, nil}}},
	}
	for _, file := range [][]byte{torchZipOf(object), legacyOf(object, "0")} {
		f, err := parseBytes(file)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(f.Tensors.Names(), []string{"weight"}) || len(f.Ignored) != len(object)-1 {
			t.Errorf("tensors %v, ignored %v", f.Tensors.Names(), f.Ignored)
		}
		for _, name := range []string{"posix.system", "os.remove", "builtins.eval", "subprocess.Popen", "copyreg extension 1"} {
			if !slices.Contains(f.Opaque, name) {
				t.Errorf("%s is not among the placeholders %v", name, f.Opaque)
			}
		}
	}
	if _, err := os.Stat(victim); err != nil {
		t.Errorf("the victim is gone: %v", err)
	}
	if _, err := os.Stat(made); err == nil {
		t.Error("the command has run")
	}
}

// What a pickle claims about lengths must not be allocated.
func TestMemoryIsBounded(t *testing.T) {
	u64 := func(n uint64) string { return string(binary.LittleEndian.AppendUint64(nil, n)) }
	long := strings.Repeat("x", 100_000)
	many := func(op string, n int) code { return code(strings.Repeat(op, n)) }
	pair := "(I1\nI2\nt"
	for name, c := range map[string]struct {
		object any
		want   string
	}{
		"string of 2^62 bytes":  {code("\x8d" + u64(1<<62)), "4611686018427387904 bytes wanted"},
		"string of 4 GiB":       {code("X\xff\xff\xff\xff"), "4294967295 bytes wanted"},
		"bytes of 2^63 bytes":   {code("\x8e" + u64(1<<63)), "bytes wanted"},
		"bytearray":             {code("\x96" + u64(1<<40)), "bytes wanted"},
		"old string, negative":  {code("T\xff\xff\xff\xff"), "bytes wanted"},
		"frame of 1 TB":         {code("\x95" + u64(1<<40)), "bytes wanted"},
		"long of 1 GB":          {code("\x8b\x00\x00\x00\x40"), "bytes wanted"},
		"long of 100 kB":        {code("\x8b" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(long)))) + long), "make sense"},
		"number of 100 kB":      {code("I" + long + "\n"), "make sense"},
		"class name of 100 kB":  {code("c" + long + "\nx\n"), "make sense"},
		"a million empty lists": {many("]", 1_000_000), "of memory"},
		"a million empty dicts": {many("}0", 1_000_000), "of memory"},
		"marks":                 {many("(", 50_000), "nested deeper"},
		"one long list, many dicts": {code("](" + strings.Repeat(pair, 100_000) + "eq\x00" +
			strings.Repeat("ccollections\nOrderedDict\nh\x00\x85R0", 1000)), "of memory"},
	} {
		data := torchZipOf(pairs{{"weight", ramp4("0")}, {"x", c.object}})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := parseBytes(data)
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(newBudget(int64(len(data))).most); got > most {
			t.Errorf("%s: a file of %d bytes allocates %d", name, len(data), got)
		}
	}
}

// The objects that a budget lets through take no more than it says.
func TestBudgetCoversObjects(t *testing.T) {
	for _, ops := range []string{"]", "}", "\x8f", ")", "N", "(", "N\x85", "N]\x86", "K\x01q\x00", "ccollections\nOrderedDict\n)R", "cx\ny\n"} {
		n := 50_000
		if ops == "(" {
			n = maxMarks
		}
		data := pickled(code(strings.Repeat(ops, n)))
		b := newBudget(1 << 40)
		full := b.left
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		v, _, err := (&unpickler{b: b}).load(data)
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(v)
		if err != nil && ops != "(" { // STOP right after a mark finds nothing to return
			t.Errorf("%q: %v", ops, err)
		}
		if took, charged := int64(after.TotalAlloc-before.TotalAlloc), full-b.left; took > garbageFactor*charged {
			t.Errorf("%q: %d bytes allocated, %d charged", ops, took, charged)
		}
	}
}

// What is made of a pickle's objects takes no more than the budget says either: a few
// bytes name the same tensor, of many axes, under thousands of names, or the same
// long key.
func TestBudgetCoversTensors(t *testing.T) {
	ones := tuple{}
	for range maxRank {
		ones = append(ones, 1)
	}
	tensor := tensorV2(ownStorage(1), 0, ones, ones)
	var weight bytes.Buffer
	emit(&weight, tensor)
	parameters := "}(X\x01\x00\x00\x00w" + weight.String() + "q\x01"
	for i := range 20_000 {
		parameters += fmt.Sprintf("X\x05\x00\x00\x00%05dh\x01", i)
	}
	module := persistentObject("A", pairs{{"_parameters", code(parameters + "u")}})

	long := strings.Repeat("x", 10_000)
	sets := func(wrapper string, inner any) []byte {
		var held, key bytes.Buffer
		emit(&held, inner)
		emit(&key, long)
		return pickled(pairs{{wrapper, code("}(" + key.String() + "q\x01" + held.String() + "q\x02" + strings.Repeat("h\x01h\x02", 10_000) + "u")}, {"model", pairs{{"w", ramp4("0")}}}})
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"one tensor, many names":       {pickled(pairs{{"ema", module}}), ""},
		"one name of a set, many sets": {sets("network", pairs{{"w", ramp4("0")}}), "the list of sets of weights needs"},
		"one name of a list":           {sets("ema", list{ramp4("0")}), "the list of sets of weights needs"},
	} {
		var err error
		within(t, len(c.data), func(b *budget) {
			u := &unpickler{b: b, persistent: func(id pyTuple) (any, error) { return parseStorage(id) }}
			r := &resolver{everyStorage{}.locate, &mapping{data: rampBytes(24)}, b}
			if c.want == "" {
				_, err = parsePersistent(&mapping{data: c.data}, "", b)
				return
			}
			root, _, errLoad := u.load(c.data)
			if err = errLoad; err == nil {
				err = new(File).unwrap(root, "", r)
			}
		})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}

// What is no sensible pickle is an error, never a panic.
func TestBrokenPickles(t *testing.T) {
	for name, ops := range map[string]string{
		"no such opcode": "\xff", "opcode 0": "\x00", "odd dict": "(Nd", "odd items": "}(Nu", "no mark": "t", "no list": "NNa",
		"empty stack": "R", "reduce of a string": "X\x01\x00\x00\x00a)R", "reduce without tuple": "cx\ny\n]R", "append to a number": "K\x01Na",
		"build of a dict": "}}b", "unknown persistent id": "NQ", "persistent text": "Px\n", "short persistent id": "X\x07\x00\x00\x00storage\x85Q",
		"out-of-band buffer": "\x97", "negative put": "Np-1\n", "text for a number": "Ix\n", "unquoted string": "Sx\n", "protocol 9": "\x80\x09",
		"nested frames": "\x95\x09\x00\x00\x00\x00\x00\x00\x00\x95\x00\x00\x00\x00\x00\x00\x00\x00", "line cut by a frame": "\x95\x02\x00\x00\x00\x00\x00\x00\x00I1\n",
		"global without name": "cx\n", "memo entry that is not there": "h\x07", "list for a class": "X\x01\x00\x00\x00a]\x93",
		"size of nothing": "ctorch\nSize\n)R", "type of nothing": "ctorch._tensor\n_rebuild_from_type_v2\n)R", "type without function": "ctorch._tensor\n_rebuild_from_type_v2\n(NNNtR",
		"type of a type": "ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\nN)NtR", "tensor by __new__": "ctorch._utils\n_rebuild_tensor_v2\n)\x81",
	} {
		f, err := parseBytes(torchZipOf(pairs{{"weight", ramp4("0")}, {"x", code(ops)}}))
		if err == nil || !strings.Contains(err.Error(), "pickle") || !strings.Contains(err.Error(), "data.pkl") {
			t.Errorf("%s: %v, error %v", name, f, err)
		}
	}
}

// Unusual pickles that Python reads.
func TestLegitimateOddities(t *testing.T) {
	python2 := reduce{global{"collections", "OrderedDict"}, tuple{list{list{"weight", ramp4("0")}, list{"n", 3}}}}
	for name, object := range map[string]any{
		"OrderedDict of Python 2": python2,
		"sets":                    pairs{{"weight", ramp4("0")}, {"s", code("\x8f(C\x01aK\x01\x90")}, {"f", code("(C\x01a\x91")}},
		"0L of Python 2":          pairs{{"weight", tensorV2(storageID("FloatStorage", "0", 4), 0, tuple{4}, tuple{1})}, {"n", code("\x8a\x00")}, {"m", code("\x8b\x00\x00\x00\x00")}},
		"object()":                pairs{{"weight", ramp4("0")}, {"o", code("c__builtin__\nobject\n)\x81")}},
		"subclasses of containers": pairs{{"weight", ramp4("0")},
			{"deque", code("ccollections\ndeque\n)R(K\x01K\x02eK\x03a")}, {"EasyDict", code("ceasydict\nEasyDict\n)\x81(X\x01\x00\x00\x00aK\x02uX\x01\x00\x00\x00bK\x03s}b")}},
		"dict made by __new__":       filled{code("c__builtin__\ndict\n)\x81"), pairs{{"weight", ramp4("0")}}},
		"state of an OrderedDict":    build{filled{orderedDict, pairs{{"weight", ramp4("0")}}}, pairs{{1, 2}}},
		"defaultdict":                filled{reduce{global{"collections", "defaultdict"}, tuple{global{"builtins", "list"}}}, pairs{{"weight", ramp4("0")}}},
		"dict of protocol 0":         code("(Vweight\n" + string(body(ramp4("0"))) + "d"),
		"bytes for a key":            pairs{{"weight", ramp4("0")}, {"x", code("\x8c\x0bcollections\x8c\x0bOrderedDict\x93)RC\x01aNs")}},
		"OrderedDict of protocol 4":  filled{code("\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x93)R"), pairs{{"weight", ramp4("0")}}},
		"parameter of PyTorch 0.3":   pairs{{"weight", reduce{global{"torch.nn.parameter", "Parameter"}, tuple{ramp4("0"), true, orderedDict}}}},
		"subclass of Tensor":         pairs{{"weight", reduce{global{"torch._tensor", "_rebuild_from_type_v2"}, tuple{global{"torch._utils", "_rebuild_tensor_v2"}, global{"my", "Tensor"}, ramp4("0").args, pairs{}}}}},
		"_rebuild_tensor and Size":   pairs{{"weight", reduce{global{"torch._utils", "_rebuild_tensor"}, tuple{storageID("FloatStorage", "0", 4), 0, reduce{global{"torch", "Size"}, tuple{ints(4)}}, ints(1)}}}},
		"tensor saved on a GPU":      pairs{{"weight", tensorV2(persid{tuple{"storage", global{"torch.cuda", "FloatStorage"}, "0", "cuda:0", 4}}, 0, ints(4), ints(1))}},
		"float32 of untyped storage": pairs{{"weight", reduce{global{"torch._utils", "_rebuild_tensor_v3"}, tuple{persid{tuple{"storage", global{"torch.storage", "UntypedStorage"}, "0", "cpu", 96}}, 0, ints(4), ints(1), false, orderedDict, global{"torch", "float32"}}}}},
	} {
		f, err := parseBytes(torchZipOf(object))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		checkValues(t, "weight", f.Tensors["weight"], []float64{-1, -.75, -.5, -.25})
	}
}

// A list that holds itself, and one that is deep, are no trouble.
func TestRecursiveValues(t *testing.T) {
	deep := strings.Repeat("]", 9000) + strings.Repeat("a", 8999)
	f, err := parseBytes(torchZipOf(pairs{{"weight", ramp4("0")}, {"self", code("]q\x01h\x01a")}, {"deep", code(deep)}, {"dict", code("}q\x02h\x02h\x02s")}}))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"self (list of 1)", "deep (list of 1)", "dict (dict of 1)"}; !slices.Equal(f.Ignored, want) {
		t.Errorf("ignored %q, want %q", f.Ignored, want)
	}
}
