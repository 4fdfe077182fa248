//go:build linux && amd64

#include "norm.h"

#include <math.h>
#include <stdatomic.h>
#include <stdint.h>

// AVX2 without FMA: a product is rounded before it is added to, as it is by the
// runtime's own operators, which are compiled for SSE.
#define TARGET __attribute__((target("avx2")))
#define INLINE static inline __attribute__((always_inline)) TARGET

typedef float vec8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef float vec4 __attribute__((vector_size(16), aligned(4), may_alias));

// TERM is a term of a sum, or a vector of them: x, or (x − mean)².
#define TERM(type, at)                                \
	({                                            \
		type v_ = *(const type *)(at);        \
		if (squares) v_ -= mean, v_ *= v_;    \
		v_;                                   \
	})

// sum adds up n terms in the order of Eigen's redux with vectors of four: two sums
// of vectors by turns, from place start on, then their lanes, then the terms before
// and behind.
INLINE float sum(const int squares, const float *x, size_t n, size_t start, float mean) {
	size_t vectors = n < start ? 0 : (n - start) / 4;
	if (vectors == 0) {
		float all = TERM(float, x);
		for (size_t i = 1; i < n; i++) all += TERM(float, x + i);
		return all;
	}
	size_t end = start + vectors * 4, pairs = start + vectors / 2 * 8;
	vec4 v = {0};
	if (vectors == 1) {
		v = TERM(vec4, x + start);
	} else {
		vec8 both = TERM(vec8, x + start);
		for (size_t i = start + 8; i < pairs; i += 8) both += TERM(vec8, x + i);
		for (int l = 0; l < 4; l++) v[l] = both[l] + both[l + 4];
		if (pairs < end) v += TERM(vec4, x + pairs);
	}
	float all = (v[0] + v[2]) + (v[1] + v[3]);
	for (size_t i = 0; i < start; i++) all += TERM(float, x + i);
	for (size_t i = end; i < n; i++) all += TERM(float, x + i);
	return all;
}

// aligned_start is the first place that a vector of four may be loaded from.
static size_t aligned_start(const float *x) { return (16 - (uintptr_t)x % 16) % 16 / 4; }

typedef struct {
	const float *x, *scale, *shift;
	float *y;
	size_t n, c, plane, groups;
	float eps;
	int each;
	atomic_size_t next;
} call;

TARGET static void norm(const call *k, size_t item) {
	size_t channels = k->c / k->groups, n = channels * k->plane, first = item % k->groups * channels;
	const float *x = k->x + item * n;
	float *y = k->y + item * n;
	float mean = sum(0, x, n, aligned_start(x), 0) / n;
	float deviation = 1 / sqrtf(sum(1, x, n, 0, mean) / n + k->eps), offset = 0 - mean * deviation;
	for (size_t c = first; c < first + channels; c++, x += k->plane, y += k->plane) {
		size_t at = k->each ? item / k->groups * k->c + c : c;
		float scale = k->scale[at], shift = k->shift[at];
		for (size_t i = 0; i < k->plane; i++) y[i] = (x[i] * deviation + offset) * scale + shift;
	}
}

static void work(void *arg, size_t worker) {
	(void)worker;
	call *k = arg;
	for (size_t item; (item = atomic_fetch_add(&k->next, 1)) < k->n * k->groups;) norm(k, item);
}

void group_norm(const float *x, size_t n, size_t c, size_t plane, size_t groups, float eps,
                const float *scale, const float *shift, int each, float *y, team t) {
	call k = {.x = x, .scale = scale, .shift = shift, .y = y, .n = n, .c = c, .plane = plane, .groups = groups, .eps = eps, .each = each};
	size_t items = n * groups;
	if (items == 0 || plane == 0) return;
	t.run(t.of, work, items < t.size ? items : t.size, &k);
}
