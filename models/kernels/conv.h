// Convolutions and pools of images in blocks of 16 channels,
// [N,C/16,H,W,16] in float32: no Go and no ONNX Runtime in here.
#ifndef SAGBENCH_CONV_H
#define SAGBENCH_CONV_H

#include <stddef.h>

enum {
	BLOCK = 16,        // channels that lie together
	MAX_BLOCKS = 1024, // of an input
	MAX_SIDE = 7,      // of a kernel
};

// A geometry is that of a convolution or a pool; padding is on both sides.
typedef struct {
	int in, out;
	int kernel[2], stride, pad[2];
} geometry;

// A team runs job(arg, i) for every i < n ≤ size, at once where it can.
typedef struct {
	void (*run)(void *of, void (*job)(void *arg, size_t i), size_t n, void *arg);
	void *of;
	size_t size;
} team;

// A part of an input is some of its channels: [n,blocks,h,w,16].
typedef struct {
	const float *x;
	int blocks;
} part;

// A conv is a convolution with its weights laid out for one implementation.
typedef struct {
	geometry g;
	int depth;      // input channels that lie together
	int vectors;    // of output channels
	float *weights; // see prepare in conv_body.h
	float *bias;    // [out]
} conv;

// An implementation is for one set of instructions.
typedef struct {
	const char *name;
	// prepare lays out weights [out,in,kh,kw] times scale [out], of a geometry
	// that conv_can; NULL: no memory.
	conv *(*prepare)(geometry g, const float *weights, const double *scale, const double *bias);
	// run sets y = max(0, conv(x) + bias) for n images of height h and width w.
	// The parts of x have in/16 blocks in all; three channels are three blocks of
	// one, [n,3,h,w]. Nonzero: no memory.
	int (*run)(const conv *c, const part *x, int n, int h, int w, float *y, team t);
	// run_planes sets y [n,out,h',w'] = conv(x) + bias for x [n,in,h,w], of a
	// geometry that conv_can_planes. Nonzero: no memory.
	int (*run_planes)(const conv *c, const float *x, int n, int h, int w, float *y, team t);
	// pool sets y to the maximum or the average over windows of n blocks of
	// channels; padding does not count. Nonzero: no memory.
	int (*pool)(geometry g, int average, const float *x, int n, int h, int w, float *y, team t);
} implementation;

// conv_implementation is the best one for this processor, or NULL. The
// environment's SAGBENCH_KERNELS allows for one of them alone, by name.
const implementation *conv_implementation(void);

// conv_can tells whether run is for this geometry: 1×1; 3×3, 5×5, 1×3, 3×1,
// 1×7 and 7×1 with stride 1; any with stride 2 and without padding, from three
// channels as well.
int conv_can(geometry g);

// conv_can_planes tells whether run_planes is: 3×3 with stride 1, from and to
// multiples of 16 channels.
int conv_can_planes(geometry g);

// conv_size is the length of an output axis.
int conv_size(geometry g, int axis, int length);

void conv_free(conv *c);

// conv_memory is for bytes that are read in a row again and again, in large pages
// where the system has them; free gives it back. NULL: there is none.
void *conv_memory(size_t bytes);

#endif
