package checkpoint

import (
	"fmt"
	"math"
	"math/bits"
)

// A region is where the bytes of a storage lie: [off, off+size) of the file,
// or raw, of size bytes, where the file holds them compressed.
type region struct {
	off, size int64
	raw       []byte
}

// part is [off, off+size) of the region, which the caller has checked.
func (r region) part(off, size int64) region {
	if r.raw != nil {
		return region{size: size, raw: r.raw[off : off+size : off+size]}
	}
	return region{off: r.off + off, size: size}
}

// A resolver turns the tensors of a pickle into located ones.
type resolver struct {
	locate func(*storage) (region, error) // finds the bytes of a storage in the file
	m      *mapping
	b      *budget
}

// tensor locates r: a pointer into the file where it lies there in C order,
// otherwise a copy in C order.
func (v *resolver) tensor(r *rebuilt) (t Tensor, err error) {
	a, err := r.arguments()
	if err != nil {
		return t, err
	}
	if a.element.dtype == "" {
		return t, fmt.Errorf("dtype %s is not supported; convert it to float32, float16, bfloat16, float64, an integer or bool before saving", shorten(a.element.name))
	}
	reg, err := v.storage(a.storage)
	if err != nil {
		return t, err
	}
	item := int64(a.element.size)
	l, err := newLayout(a.shape, a.stride, item)
	if err != nil {
		return t, err
	}
	if l.numel > 0 && l.span > reg.size/item-a.offset {
		return t, fmt.Errorf("shape %v with strides %v needs elements [%d, %d+%d) of storage %q, which has %d",
			a.shape, a.stride, a.offset, a.offset, l.span, shorten(a.storage.key), reg.size/item)
	}
	if err := v.b.take(128+8*int64(len(a.shape)), "the list of tensors"); err != nil {
		return t, err
	}
	t = Tensor{DType: a.element.dtype, Shape: make([]int, len(a.shape)), Size: l.numel * item}
	for i, d := range a.shape {
		t.Shape[i] = int(d)
	}
	return v.place(t, a, l, reg)
}

// place fills in Offset or Raw.
func (v *resolver) place(t Tensor, a tensorArgs, l layout, reg region) (Tensor, error) {
	item := int64(a.element.size)
	offset := a.offset * item
	if l.numel == 0 {
		offset = 0 // whatever the pickle says
	}
	p := reg.part(offset, l.span*item)
	if l.contiguous {
		t.Offset, t.Raw = p.off, p.raw
		return t, nil
	}
	if err := v.b.take(t.Size, "a strided tensor"); err != nil {
		return t, err
	}
	src := p.raw
	if src == nil {
		var err error
		if src, err = v.m.view(p.off, p.size); err != nil {
			return t, err
		}
	}
	t.Raw = make([]byte, t.Size)
	gather(t.Raw, src, a.shape, a.stride, int(item))
	return t, nil
}

// storage is the region of s, cut down to the view that s is.
func (v *resolver) storage(s *storage) (region, error) {
	reg, err := v.locate(s)
	if err != nil {
		return region{}, err
	}
	item := int64(s.element.size)
	if s.numel > reg.size/item {
		return region{}, fmt.Errorf("storage %q is too short: %d bytes in the file, %d elements of %s are claimed", shorten(s.key), reg.size, s.numel, s.element.name)
	}
	return reg.part(s.from*item, s.n*item), nil
}

// A layout sums up a shape and its strides.
type layout struct {
	numel      int64
	span       int64 // elements from the first to the last that is touched, inclusive
	contiguous bool  // C order without gaps; strides of axes of length 1 do not matter
}

// newLayout checks that the arithmetic stays within int64 for elements of
// item bytes. All values are ≥ 0.
func newLayout(shape, stride []int64, item int64) (layout, error) {
	l := layout{numel: 1, span: 1, contiguous: true}
	if len(shape) != len(stride) {
		return l, fmt.Errorf("%d dimensions but %d strides", len(shape), len(stride))
	}
	for i := len(shape) - 1; i >= 0; i-- {
		if shape[i] > 1 && stride[i] != l.numel {
			l.contiguous = false
		}
		hi, n := bits.Mul64(uint64(l.numel), uint64(shape[i]))
		if hi != 0 || n > math.MaxInt64/16 {
			return l, fmt.Errorf("shape %v has too many elements", shape)
		}
		l.numel = int64(n)
		if shape[i] == 0 {
			// An empty tensor: nothing is touched, whatever the rest says.
			return layout{contiguous: true}, nil
		}
		hi, n = bits.Mul64(uint64(shape[i]-1), uint64(stride[i]))
		if hi != 0 || n > math.MaxInt64/uint64(16*item)-uint64(l.span) {
			return l, fmt.Errorf("shape %v with strides %v reaches too far", shape, stride)
		}
		l.span += int64(n)
	}
	return l, nil
}

// gather copies the elements of a strided view into C order. src begins at the
// view's first element and reaches to its last; there is at least one.
func gather(dst, src []byte, shape, stride []int64, item int) {
	run := item // bytes that lie together at the end of every row
	rank := len(shape)
	for rank > 0 && (shape[rank-1] == 1 || stride[rank-1]*int64(item) == int64(run)) {
		run *= int(shape[rank-1])
		rank--
	}
	index := make([]int64, rank)
	at := int64(0) // element of src
	for n := 0; ; n += run {
		copy(dst[n:n+run], src[at*int64(item):])
		axis := rank - 1
		for ; axis >= 0; axis-- {
			index[axis]++
			at += stride[axis]
			if index[axis] < shape[axis] {
				break
			}
			at -= index[axis] * stride[axis]
			index[axis] = 0
		}
		if axis < 0 {
			return
		}
	}
}
