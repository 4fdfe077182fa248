package ort

// #include <stdlib.h>
// #include "runtime_api.h"
import "C"

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	rt "github.com/yalue/onnxruntime_go"
)

// A Placement is where the nodes of a graph run that was prepared for another device
// than the CPU.
type Placement struct {
	Graph     string // tells it from others
	Device    string // that was asked for, in full
	Hardware  string // its name; "" where it is not known
	Precision string
	Nodes     map[string]int // by provider, as the runtime calls it
	Elsewhere map[string]int // those that another provider runs, by operator
}

// recordPlacement makes the runtime note which provider runs a node.
const recordPlacement = "session.record_ep_graph_assignment_info"

// weighted are the operators that have weights to multiply by, without what stands
// before and after it in the names of fused ones: FusedConv, MatMulNBits, FusedGemm.
var weighted = []string{"Conv", "MatMul", "Gemm", "Attention", "Einsum"}

// placement is where the nodes of a session run that was made for device d. It is an
// error where one with weights runs on another provider, unless that is allowed.
func (s *Session) placement(session *rt.DynamicAdvancedSession, d Device) (Placement, error) {
	p := Placement{
		Graph: fmt.Sprintf("%x", sha256.Sum256(append(slices.Clone(s.model.Proto), s.path...))), Device: d.String(), Hardware: d.HardwareName(),
		Precision: cmp.Or(s.options.Precision, Float32), Nodes: map[string]int{}, Elsewhere: map[string]int{},
	}
	raw, err := rawSession(session)
	if err == nil {
		err = openAPI()
	}
	if err != nil {
		return p, err
	}
	var list *C.char
	var length C.size_t
	if err := failure(C.api_placement(raw, &list, &length)); err != nil {
		return p, err
	}
	defer C.free(unsafe.Pointer(list))
	fields := strings.Split(C.GoStringN(list, C.int(length)), "\x00")
	if s.waves != nil {
		for _, n := range s.waves.model.Nodes {
			p.Nodes["CPUExecutionProvider"]++
			p.Elsewhere[n.Op]++
		}
	}
	var strayed []string
	for ; len(fields) > 4; fields = fields[4:] {
		ep, operator, name := fields[0], fields[2], fields[3]
		p.Nodes[ep]++
		if ep == d.EP {
			if d.coarse && (operator == "Sin" || operator == "Cos") {
				return p, fmt.Errorf("%s %s would run on it, whose sines and cosines are no float32's; run this graph on another device", operator, name)
			}
			continue
		}
		p.Elsewhere[operator]++
		if slices.ContainsFunc(weighted, func(w string) bool { return strings.Contains(operator, w) }) {
			strayed = append(strayed, fmt.Sprintf("%s (%s, on %s)", name, operator, ep))
		}
	}
	if len(strayed) > 0 && !s.options.AllowFallback {
		const shown = 5
		more := ""
		if len(strayed) > shown {
			more = fmt.Sprintf(" and %d more", len(strayed)-shown)
		}
		return p, fmt.Errorf("%d nodes with weights do not run on it: %s%s; --allow-fallback accepts that", len(strayed), strings.Join(strayed[:min(shown, len(strayed))], ", "), more)
	}
	return p, nil
}

// rawSession is the runtime's pointer.
func rawSession(session *rt.DynamicAdvancedSession) (unsafe.Pointer, error) {
	inner, err := pointer(session, "s")
	if err != nil {
		return nil, err
	}
	return pointer((*rt.AdvancedSession)(inner), "ortSession")
}
