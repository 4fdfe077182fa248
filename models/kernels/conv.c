//go:build linux && amd64

#include "conv.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "winograd.h"

extern const implementation implementation_avx512, implementation_avx2;

// allowed tells whether the user lets an implementation be.
static int allowed(const implementation *i) {
	const char *only = getenv("SAGBENCH_KERNELS");
	return !only || !*only || strcmp(only, i->name) == 0;
}

const implementation *conv_implementation(void) {
	const implementation *wide = &implementation_avx512, *narrow = &implementation_avx2;
	if (allowed(wide) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) return wide;
	if (allowed(narrow) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return narrow;
	return NULL;
}

int conv_can(geometry g) {
	int a = g.kernel[0], b = g.kernel[1], padded = g.pad[0] || g.pad[1];
	if (g.out < BLOCK || g.out % BLOCK || a < 1 || b < 1 || a > MAX_SIDE || b > MAX_SIDE) return 0;
	if (g.in == 3) return g.stride == 2 && !padded;
	if (g.in < BLOCK || g.in % BLOCK || g.in > BLOCK * MAX_BLOCKS) return 0;
	if (g.stride == 2) return !padded;
	if (g.stride != 1) return 0;
	if (a == 1 && b == 1) return !padded;
	int known = (a == 3 && b == 3) || (a == 5 && b == 5) || (a == 1 && (b == 3 || b == 7)) || (b == 1 && (a == 3 || a == 7));
	return known && g.pad[0] >= 0 && g.pad[0] < a && g.pad[1] >= 0 && g.pad[1] < b;
}

int conv_can_planes(geometry g) { return conv_can(g) && g.in >= BLOCK && g.stride == 1 && g.kernel[0] == 3 && g.kernel[1] == 3; }

int conv_size(geometry g, int axis, int length) {
	int left = length + 2 * g.pad[axis] - g.kernel[axis];
	return left < 0 ? 0 : left / g.stride + 1;
}

void conv_free(conv *c) {
	if (!c) return;
	free(c->weights);
	free(c->bias);
	free(c);
}

void *conv_memory(size_t bytes) {
	const size_t large = 2 << 20; // with small pages, to find the next takes as long as to read it
	size_t page = bytes < large ? 64 : large;
	bytes = (bytes + page - 1) / page * page;
	void *p = aligned_alloc(page, bytes);
	if (p && page == large) madvise(p, bytes, MADV_HUGEPAGE);
	return p;
}

void winograd_weights(int taps, double *g) {
	int n = points(taps), finite = n - 1, k = pairs(taps);
	if (taps == 1) {
		g[0] = 1;
		return;
	}
	double at[MAX_POINTS] = {0};
	for (int i = 0; i < k; i++) {
		at[1 + 2 * i] = POINTS[k][i];
		at[2 + 2 * i] = -POINTS[k][i];
	}
	for (int i = 0; i < finite; i++) {
		double value = 1; // of the powers, over the product of the distances
		for (int j = 0; j < finite; j++) {
			if (j != i) value /= at[i] - at[j];
		}
		for (int t = 0; t < taps; t++, value *= at[i]) g[i * taps + t] = value;
	}
	for (int t = 0; t < taps; t++) g[finite * taps + t] = t == taps - 1;
}
