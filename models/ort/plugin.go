package ort

// #cgo linux LDFLAGS: -ldl
// #include <stdlib.h>
// #include "runtime_api.h"
import "C"

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	rt "github.com/yalue/onnxruntime_go"

	"sagbench/models/cache"
)

// failure is an error of the functions in C, which it frees.
func failure(message *C.char) error {
	if message == nil {
		return nil
	}
	defer C.free(unsafe.Pointer(message))
	return errors.New(C.GoString(message))
}

// base is OrtGetApiBase of the runtime that is loaded.
func base() (unsafe.Pointer, error) {
	library, err := LibraryPath()
	if err != nil {
		return nil, err
	}
	path := C.CString(library)
	defer C.free(unsafe.Pointer(path))
	p := C.api_base(path)
	if p == nil {
		return nil, fmt.Errorf("ort: %s has no OrtGetApiBase: expected the shared library of ONNX Runtime", library)
	}
	return p, nil
}

// openAPI makes the functions in C ready.
var openAPI = sync.OnceValue(func() error {
	if err := initialize(); err != nil {
		return err
	}
	p, err := base()
	if err == nil {
		err = failure(C.api_open(p))
	}
	return err
})

// pointer is the pointer to C of a value of the binding, whose calls do not reach as
// far: the field of that name.
func pointer(of any, field string) (unsafe.Pointer, error) {
	p := reflect.ValueOf(of).Elem().FieldByName(field)
	if p.Kind() != reflect.Pointer {
		return nil, fmt.Errorf("ort: %T of this release of onnxruntime_go holds no pointer %s", of, field)
	}
	return p.UnsafePointer(), nil
}

var plugins struct {
	sync.Mutex
	loaded map[*plugin]error
}

// load makes the plugin's provider known to the runtime, once a process.
func (p *plugin) load() error {
	if err := openAPI(); err != nil {
		return err
	}
	plugins.Lock()
	defer plugins.Unlock()
	err, known := plugins.loaded[p]
	if known {
		return err
	}
	if err = p.verify(); err == nil {
		err = p.register()
	}
	if plugins.loaded == nil {
		plugins.loaded = map[*plugin]error{}
	}
	plugins.loaded[p] = err
	return err
}

func (p *plugin) register() error {
	folder, err := p.path()
	if err != nil {
		return err
	}
	for key, value := range p.env {
		os.Setenv(key, value) // in C's environment too, as the program uses cgo
	}
	for _, name := range p.before {
		path := C.CString(filepath.Join(folder, name))
		err := failure(C.api_preload(path))
		C.free(unsafe.Pointer(path))
		if err != nil {
			return err
		}
	}
	return rt.RegisterExecutionProviderLibrary(p.folder, filepath.Join(folder, p.library))
}

// path is the folder of the plugin, whether it is there or not.
func (p *plugin) path() (string, error) {
	root, err := cache.Root()
	return filepath.Join(root, p.folder), err
}

// errNotInstalled is that of a plugin that is not there.
var errNotInstalled = errors.New("is not installed")

// verify compares the plugin's libraries with the list in its wheel, and that with
// what is pinned: a flipped byte may be another number.
func (p *plugin) verify() error {
	folder, err := p.path()
	if err != nil {
		return err
	}
	record, err := os.ReadFile(filepath.Join(folder, "RECORD"))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s %w (looked for %s)", p.folder, errNotInstalled, folder)
	}
	if err != nil {
		return err
	}
	damaged := func(name string) error {
		return fmt.Errorf("%s is damaged; remove the folder and install it anew", filepath.Join(folder, name))
	}
	if sum := sha256.Sum256(record); hex.EncodeToString(sum[:]) != p.records[runtime.GOARCH] {
		return damaged("RECORD")
	}
	for line := range strings.Lines(string(record)) {
		path, rest, _ := strings.Cut(line, ",sha256=")
		name := filepath.Base(path)
		if !strings.Contains(name, ".so") {
			continue
		}
		want, _, _ := strings.Cut(rest, ",")
		sum, err := cache.Sum(filepath.Join(folder, name))
		if err != nil {
			return err
		}
		if raw, err := base64.RawURLEncoding.DecodeString(want); err != nil || sum != hex.EncodeToString(raw) {
			return damaged(name)
		}
	}
	return nil
}

// A Hardware is a device that a plugin's provider can run graphs on.
type Hardware struct {
	EP     string
	Where  string // behind the colon of --device
	Name   string
	Kind   string // CPU, GPU or NPU
	Vendor string
	ID     [2]uint32         // vendor and device on the bus; 0 where they are not told
	Told   map[string]string // what else the system and the provider tell of it
	index  int               // in the runtime's list
}

// hardware lists what the providers that are loaded could run on.
func hardware() ([]Hardware, error) {
	if err := openAPI(); err != nil {
		return nil, err
	}
	var list *C.device
	var n C.size_t
	if err := failure(C.api_devices(&list, &n)); err != nil {
		return nil, fmt.Errorf("ort: %w", err)
	}
	defer C.free(unsafe.Pointer(list))
	var all []Hardware
	for i, d := range unsafe.Slice(list, n) {
		h := Hardware{
			EP: C.GoString(d.ep), Vendor: C.GoString(d.vendor), ID: [2]uint32{uint32(d.vendor_id), uint32(d.device_id)},
			Kind: map[C.int]string{C.DEVICE_CPU: "CPU", C.DEVICE_GPU: "GPU", C.DEVICE_NPU: "NPU"}[d.kind], Told: map[string]string{}, index: i,
		}
		for k := range d.keys {
			keys, values := unsafe.Slice(d.keys[k], d.counts[k]), unsafe.Slice(d.values[k], d.counts[k])
			for j, key := range keys {
				h.Told[C.GoString(key)] = C.GoString(values[j])
			}
		}
		all = append(all, h)
	}
	return all, nil
}

// appendTo puts the hardware into session options, with options of the provider.
func (h Hardware) appendTo(so *rt.SessionOptions, options map[string]string) error {
	p, err := pointer(so, "o")
	if err != nil {
		return err
	}
	var keys, values []*C.char
	for k, v := range options {
		keys, values = append(keys, C.CString(k)), append(values, C.CString(v))
	}
	defer func() {
		for _, s := range slices.Concat(keys, values) {
			C.free(unsafe.Pointer(s))
		}
	}()
	return failure(C.api_append(p, C.size_t(h.index), unsafe.SliceData(keys), unsafe.SliceData(values), C.size_t(len(keys))))
}

// appendTo puts the device into session options, with the options of its provider for
// a precision and a number of threads, 0 for the provider's own choice.
func (d Device) appendTo(so *rt.SessionOptions, p Precision, threads int) error {
	options := d.options(d.Where, p, threads)
	if d.plugin == nil {
		return d.appendCUDA(so, options)
	}
	if err := d.load(); err != nil {
		return err
	}
	h, err := d.hardware()
	if err != nil {
		return err
	}
	if d.can != nil && !d.can(h, p) {
		return fmt.Errorf("%s computes in no %s, but in %s", h.Name, p.Name, strings.Join(d.offered(h), ", "))
	}
	return h.appendTo(so, options)
}

// appendCUDA is appendTo for the provider that is part of the runtime's GPU build.
func (d Device) appendCUDA(so *rt.SessionOptions, options map[string]string) error {
	if err := verifyCUDA(); err != nil {
		return err
	}
	if os.Getenv("CUDA_DEVICE_ORDER") == "" {
		os.Setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID") // numbers as nvidia-smi has them, not the fastest first
	}
	co, err := rt.NewCUDAProviderOptions()
	if err == nil {
		defer co.Destroy()
		err = co.Update(options)
	}
	if err == nil {
		err = so.AppendExecutionProviderCUDA(co)
	}
	if err != nil {
		return fmt.Errorf("%w; %s, and the GPU build of ONNX Runtime (`make onnxruntime DEVICE=cuda`)", err, d.needs)
	}
	return nil
}

// hardware is that of the device among what is there.
func (d Device) hardware() (Hardware, error) {
	all, err := d.found()
	if err != nil {
		return Hardware{}, err
	}
	if len(all) == 0 {
		return Hardware{}, fmt.Errorf("there is no device for it here; %s", d.needs)
	}
	var there []string
	for _, h := range all {
		if h.Where == d.Where {
			return h, nil
		}
		there = append(there, fmt.Sprintf("%s:%s (%s)", d.Name, h.Where, h.Name))
	}
	return Hardware{}, fmt.Errorf("there is none such here, but %s", strings.Join(there, ", "))
}

// load loads the plugin of a provider that has one.
func (p *Provider) load() error {
	err := p.plugin.load()
	if errors.Is(err, errNotInstalled) {
		return fmt.Errorf("%w; install it with `make onnxruntime DEVICE=%s`", err, p.Name)
	}
	if err != nil {
		return fmt.Errorf("%w; %s", err, p.needs)
	}
	return nil
}

// found are the devices of a provider whose plugin is loaded, with what stands for them
// behind the colon.
func (p *Provider) found() ([]Hardware, error) {
	all, err := hardware()
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(h Hardware) bool { return h.EP != p.EP })
	for i := range all {
		h := &all[i]
		h.Where = strings.TrimSuffix(cmp.Or(h.Told["ov_device"], strconv.Itoa(i)), ".0")
		h.Name = cmp.Or(h.Told["FULL_DEVICE_NAME"], h.Told["Description"], strings.TrimSpace(fmt.Sprintf("%s %s %04x:%04x", h.Vendor, h.Kind, h.ID[0], h.ID[1])))
	}
	return all, nil
}
