// The implementation NAME with the instructions TARGET, for vectors of LANES
// floats: a kernel computes PLACES pixels at once.

#include <immintrin.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "conv.h"
#include "winograd.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define STRING_(a) #a
#define STRING(a) STRING_(a)
#define INLINE static inline __attribute__((always_inline)) TARGET
#define UNROLL _Pragma("GCC unroll 16")

typedef float vec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

INLINE vec load(const float *p) { return *(const vec *)p; }
INLINE void store(float *p, vec v) { *(vec *)p = v; }
INLINE vec greater(vec a, vec b) { return (vec)MAX(a, b); }
INLINE vec relu(vec v) { return greater((vec){0}, v); } // NaN stays NaN

enum {
	HALVES = BLOCK / LANES, // vectors of a block
	PANEL = 2,              // vectors of output channels that a kernel computes at once
	GROUP = 4 * PLACES,     // pixels that share a panel's weights while they are in the cache
	RECTANGLE = 32,         // tiles that are computed together, at the most
	CHUNK = 8,              // blocks of input channels whose operands and weights share the first-level cache
	LINE = 16,              // floats that the caches load at once
	AHEAD = 2048,           // how many of Winograd's weights are asked for before they are used
};

// ---- sums of products

// A walk leads through the factors of a sum: from a place in each block of
// channels to those of the kernel's rows and columns, given in floats.
typedef struct {
	const float *const *blocks;
	int count, rows, columns;
	size_t row, column;
	int onward; // raw sums go on from those in y
} walk;

// multiply adds up the products of P places, step floats apart from x on, with V
// vectors of output channels, and leaves them with bias and ReLU or, raw, without.
// Raw are the sums of Winograd's algorithm, whose weights come from far.
INLINE void multiply(const int P, const int V, const int step, const int depth, const int raw,
                     size_t x, const walk *s, const float *w, const float *bias,
                     float *y, size_t place, size_t vector) {
	vec sum[PLACES][PANEL];
	UNROLL for (int p = 0; p < P; p++) {
		UNROLL for (int v = 0; v < V; v++) {
			if (raw) sum[p][v] = s->onward ? load(y + p * place + v * vector) : (vec){0};
			else sum[p][v] = load(bias + v * LANES);
		}
	}
	for (int b = 0; b < s->count; b++) {
		for (int i = 0; i < s->rows; i++) {
			for (int j = 0; j < s->columns; j++) {
				const float *from = s->blocks[b] + x + i * s->row + j * s->column;
				for (int c = 0; c < depth; c++, w += V * LANES) {
					if (raw) {
						UNROLL for (int v = 0; v < V * LANES; v += LINE) __builtin_prefetch(w + AHEAD + v);
					}
					vec f[PANEL];
					UNROLL for (int v = 0; v < V; v++) f[v] = load(w + v * LANES);
					UNROLL for (int p = 0; p < P; p++) {
						UNROLL for (int v = 0; v < V; v++) sum[p][v] += from[c + p * step] * f[v];
					}
				}
			}
		}
	}
	UNROLL for (int p = 0; p < P; p++) {
		UNROLL for (int v = 0; v < V; v++) store(y + p * place + v * vector, raw ? sum[p][v] : relu(sum[p][v]));
	}
}

typedef void kernel(size_t x, const walk *s, const float *w, const float *bias, float *y, size_t place, size_t vector);

// KERNELS makes the table name[P-1][V-1] of kernels.
#define KERNEL(name, P, V, step, depth, raw)                                                                  \
	TARGET static void name##_##P##_##V(size_t x, const walk *s, const float *w, const float *bias, \
	                                    float *y, size_t place, size_t vector) {                          \
		multiply(P, V, step, depth, raw, x, s, w, bias, y, place, vector);                            \
	}
#define BOTH(P, name, step, depth, raw) KERNEL(name, P, 1, step, depth, raw) KERNEL(name, P, 2, step, depth, raw)
#define ENTRY(P, name) {name##_##P##_1, name##_##P##_2},
#define TO6(M, ...) M(1, __VA_ARGS__) M(2, __VA_ARGS__) M(3, __VA_ARGS__) M(4, __VA_ARGS__) M(5, __VA_ARGS__) M(6, __VA_ARGS__)
#define TO14(M, ...)                                                                                    \
	TO6(M, __VA_ARGS__) M(7, __VA_ARGS__) M(8, __VA_ARGS__) M(9, __VA_ARGS__) M(10, __VA_ARGS__)    \
	M(11, __VA_ARGS__) M(12, __VA_ARGS__) M(13, __VA_ARGS__) M(14, __VA_ARGS__)
#if PLACES == 14
#define EACH TO14
#else
#define EACH TO6
#endif
#define KERNELS(name, step, depth, raw)      \
	EACH(BOTH, name, step, depth, raw) \
	static kernel *const name[PLACES][PANEL] = {EACH(ENTRY, name)};

KERNELS(plain, BLOCK, BLOCK, 0)       // stride 1
KERNELS(strided, 2 * BLOCK, BLOCK, 0) // stride 2
KERNELS(planar, 2, 1, 0)              // stride 2, channels one by one
KERNELS(products, BLOCK, BLOCK, 1)    // of Winograd's algorithm

// ---- weights

static int by_winograd(geometry g) { return g.stride == 1 && g.kernel[0] * g.kernel[1] > 1; }

static int panels(const conv *c) { return (c->vectors + PANEL - 1) / PANEL; }

// width is how many vectors a panel has.
static int width(const conv *c, int panel) {
	int left = c->vectors - panel * PANEL;
	return left < PANEL ? left : PANEL;
}

// products_of is how many products a convolution takes for one tile of outputs.
static int products_of(geometry g) {
	return by_winograd(g) ? points(g.kernel[0]) * points(g.kernel[1]) : g.kernel[0] * g.kernel[1];
}

static const float *weights(const conv *c, int panel) {
	return c->weights + (size_t)panel * PANEL * LANES * products_of(c->g) * c->g.in;
}

// chunk is how many blocks of input channels, from one on, are multiplied with all
// panels before the next.
static int chunk(const conv *c, int block) {
	int left = c->g.in / BLOCK - block;
	return left < CHUNK ? left : CHUNK;
}

// winograd is where a panel's weights of one point for the chunk from block on are.
static float *winograd(const conv *c, int panel, int point, int block) {
	return c->weights + ((size_t)point * c->g.in + block * BLOCK) * c->g.out + panel * PANEL * LANES * chunk(c, block) * BLOCK;
}

// combine sets to [n,stride] of vectors of a panel to sums of from [k,stride]
// with factors [n,k].
INLINE void combine(const double *factors, int n, int k, int stride, const double (*from)[PANEL * LANES], double (*to)[PANEL * LANES]) {
	for (int i = 0; i < n; i++) {
		double *sum = to[i * stride];
		for (int o = 0; o < PANEL * LANES; o++) sum[o] = 0;
		for (int t = 0; t < k; t++) {
			for (int o = 0; o < PANEL * LANES; o++) sum[o] += factors[i * k + t] * from[t * stride][o];
		}
	}
}

// transform_weights turns the taps of a panel's output channels for one input
// channel into Winograd's points.
TARGET static void transform_weights(geometry g, const double (*w)[PANEL * LANES], double (*to)[PANEL * LANES]) {
	double factors[MAX_POINTS * MAX_TAPS], rows[MAX_POINTS * MAX_TAPS][PANEL * LANES];
	winograd_weights(g.kernel[0], factors);
	for (int b = 0; b < g.kernel[1]; b++) combine(factors, points(g.kernel[0]), g.kernel[0], g.kernel[1], w + b, rows + b);
	winograd_weights(g.kernel[1], factors);
	for (int a = 0; a < points(g.kernel[0]); a++) combine(factors, points(g.kernel[1]), g.kernel[1], 1, rows + a * g.kernel[1], to + a * points(g.kernel[1]));
}

// prepare lays out [panel,block,row,column,depth,channel], or for Winograd's
// algorithm [point,chunk,panel,depth,channel], which is the order of use.
static conv *prepare(geometry g, const float *w, const double *scale, const double *bias) {
	int taps = g.kernel[0] * g.kernel[1], count = products_of(g);
	conv *c = calloc(1, sizeof *c);
	if (!c) return NULL;
	c->g = g;
	c->depth = g.in % BLOCK ? 1 : BLOCK;
	c->vectors = g.out / LANES;
	c->bias = malloc(sizeof(float) * g.out);
	c->weights = conv_memory(sizeof(float) * count * g.in * g.out);
	if (!c->bias || !c->weights) {
		conv_free(c);
		return NULL;
	}
	for (int o = 0; o < g.out; o++) c->bias[o] = bias[o];
	float *to = c->weights;
	for (int p = 0; p < panels(c); p++) {
		int channels = width(c, p) * LANES, first = p * PANEL * LANES;
		for (int i = 0; i < g.in; i++) {
			double taken[MAX_SIDE * MAX_SIDE][PANEL * LANES] = {{0}}, points[MAX_POINTS * MAX_POINTS][PANEL * LANES];
			for (int o = 0; o < channels; o++) {
				for (int t = 0; t < taps; t++) taken[t][o] = w[((size_t)(first + o) * g.in + i) * taps + t] * scale[first + o];
			}
			if (by_winograd(g)) transform_weights(g, taken, points);
			for (int q = 0; q < count; q++) {
				size_t at = (size_t)(i / c->depth * taps + q) * c->depth + i % c->depth;
				float *t = by_winograd(g) ? winograd(c, p, q, i / BLOCK / CHUNK * CHUNK) + i % (CHUNK * BLOCK) * channels : to + at * channels;
				for (int o = 0; o < channels; o++) t[o] = by_winograd(g) ? points[q][o] : taken[q][o];
			}
		}
		to += (size_t)count * g.in * channels;
	}
	return c;
}

// ---- a run

// A call is one run of a convolution; the items of its work are done by whoever
// comes first.
typedef struct {
	const conv *c;
	const part *parts; // of the input
	float *y;
	int n, h, w, oh, ow;

	size_t items;
	atomic_size_t next;
	float *scratch;
	size_t space; // floats of scratch for each worker

	// Winograd's algorithm: rows and columns of tiles, tiles of an item; in planes
	// rows and columns of these. Directly: rows and their length, kernels of a row
	// and of an item.
	int planes, rows, columns, length, count;
} call;

// output is where vector v of the output channels of an image is.
static float *output(const call *k, int image, int v) {
	size_t block = (size_t)image * (k->c->g.out / BLOCK) + v / HALVES;
	return k->y + block * k->oh * k->ow * BLOCK + v % HALVES * LANES;
}

// blocks_of sets at [in/depth] to where the blocks of an image are.
static void blocks_of(const call *k, int image, const float **at) {
	size_t block = (size_t)k->h * k->w * k->c->depth;
	int count = k->c->g.in / k->c->depth;
	for (const part *p = k->parts; count > 0; p++) {
		const float *x = p->x + image * p->blocks * block;
		for (int b = 0; b < p->blocks; b++, count--) *at++ = x + b * block;
	}
}

// ---- directly

// direct computes the kernels of one item, panel by panel.
static void direct(const call *k, size_t item) {
	const conv *c = k->c;
	geometry g = c->g;
	kernel *const(*table)[PANEL] = g.stride == 1 ? plain : c->depth == BLOCK ? strided : planar;
	int all = k->rows * k->columns, items = (all + k->count - 1) / k->count;
	int image = item / items, from = item % items * k->count, to = from + k->count < all ? from + k->count : all;
	const float *blocks[MAX_BLOCKS];
	blocks_of(k, image, blocks);
	walk s = {blocks, g.in / c->depth, g.kernel[0], g.kernel[1], (size_t)k->w * c->depth, c->depth};
	for (int p = 0; p < panels(c); p++) {
		int v = width(c, p);
		float *y = output(k, image, p * PANEL);
		size_t vector = v > 1 ? output(k, image, p * PANEL + 1) - y : 0;
		for (int t = from; t < to; t++) {
			size_t row = t / k->columns;
			int i = t % k->columns, begin = i * k->length / k->columns, end = (i + 1) * k->length / k->columns;
			table[end - begin - 1][v - 1]((row * s.row + begin * s.column) * g.stride, &s, weights(c, p), c->bias + p * PANEL * LANES,
			                              y + (row * k->length + begin) * BLOCK, BLOCK, vector);
		}
	}
}

// ---- by Winograd's algorithm

// product sets c [K+1] to the coefficients, in x², of the product of x²−p² over
// the points p but number skip. All of it is known to the compiler.
INLINE void product(const int K, const int skip, float *c) {
	UNROLL for (int i = 1; i <= K; i++) c[i] = 0;
	c[0] = 1;
	UNROLL for (int j = 0; j < K; j++) {
		if (j == skip) continue;
		const float square = POINTS[K][j] * POINTS[K][j];
		UNROLL for (int i = K; i > 0; i--) c[i] = c[i - 1] - square * c[i];
		c[0] *= -square;
	}
}

// inputs is the transform of 2K+2 inputs: at 0, ±p and infinity.
INLINE void inputs(const int K, const vec *d, vec *to) {
	if (K == 0) {
		to[0] = d[0];
		return;
	}
	float c[MAX_POINTS];
	product(K, -1, c);
	to[0] = d[2 * K];
	to[2 * K + 1] = d[2 * K + 1];
	UNROLL for (int i = 0; i < K; i++) {
		to[0] += c[i] * d[2 * i];
		to[2 * K + 1] += c[i] * d[2 * i + 1];
	}
	UNROLL for (int i = 0; i < K; i++) {
		product(K, i, c);
		vec even = d[2 * K], odd = d[2 * K - 1];
		UNROLL for (int j = 0; j < K - 1; j++) {
			even += c[j] * d[2 * j + 2];
			odd += c[j] * d[2 * j + 1];
		}
		to[1 + 2 * i] = even + POINTS[K][i] * odd;
		to[2 + 2 * i] = even - POINTS[K][i] * odd;
	}
}

// sums is the transform of 2K+2 products to OUTPUTS outputs.
INLINE void sums(const int K, const vec *m, vec *y) {
	y[0] = m[0];
	if (K == 0) return;
	y[1] = y[2] = (vec){0};
	y[3] = m[2 * K + 1];
	UNROLL for (int i = 0; i < K; i++) {
		const float p = POINTS[K][i];
		vec even = m[1 + 2 * i] + m[2 + 2 * i], odd = m[1 + 2 * i] - m[2 + 2 * i];
		y[0] += even;
		y[1] += p * odd;
		y[2] += p * p * even;
		y[3] += p * p * p * odd;
	}
}

// transform_inputs transforms one tile, row floats between its rows, to one
// place in the operands of each product, which are next floats apart.
INLINE void transform_inputs(const int A, const int B, const float *x, size_t row, float *to, size_t next) {
	const int height = points(A), across = points(B);
	vec t[MAX_POINTS][MAX_POINTS];
	UNROLL for (int i = 0; i < height; i++) {
		vec d[MAX_POINTS];
		UNROLL for (int j = 0; j < across; j++) d[j] = load(x + i * row + j * BLOCK);
		inputs(pairs(B), d, t[i]);
	}
	UNROLL for (int j = 0; j < across; j++) {
		vec d[MAX_POINTS], e[MAX_POINTS];
		UNROLL for (int i = 0; i < height; i++) d[i] = t[i][j];
		inputs(pairs(A), d, e);
		UNROLL for (int i = 0; i < height; i++) store(to + (i * across + j) * next, e[i]);
	}
}

// transform_products transforms one tile's products, next floats apart, to
// outputs, h rows of w at the most.
INLINE void transform_products(const int A, const int B, const int rectify, const float *m, size_t next, vec bias, float *y, size_t row, int h, int w) {
	const int height = points(A), across = points(B);
	vec t[OUTPUTS][MAX_POINTS];
	UNROLL for (int j = 0; j < across; j++) {
		vec d[MAX_POINTS], e[OUTPUTS];
		UNROLL for (int i = 0; i < height; i++) d[i] = load(m + (i * across + j) * next);
		sums(pairs(A), d, e);
		UNROLL for (int i = 0; i < outputs(A); i++) t[i][j] = e[i];
	}
	UNROLL for (int i = 0; i < outputs(A); i++) {
		if (i >= h) break;
		vec e[OUTPUTS];
		sums(pairs(B), t[i], e);
		UNROLL for (int j = 0; j < outputs(B); j++) {
			vec sum = e[j] + bias;
			if (rectify) sum = relu(sum);
			if (j < w) store(y + i * row + j * BLOCK, sum);
		}
	}
}

// A tile is where outputs(A)·outputs(B) outputs start.
typedef struct { int image, top, left; } tile;

INLINE tile tile_at(const int A, const int B, const call *k, size_t i) {
	size_t area = (size_t)k->rows * k->columns, at = i % area;
	return (tile){i / area, at / k->columns * outputs(A), at % k->columns * outputs(B)};
}

// next_operands is how far the operands of one point are from those of the next,
// and next_products the same of a panel's products. A whole number of pages would
// put those of all points into the same few lines of the first-level cache.
static size_t next_operands(const conv *c, int count) { return (size_t)count * c->g.in + BLOCK; }
static size_t next_products(int count) { return (size_t)count * PANEL * LANES + BLOCK; }

// operands transforms all blocks of channels of tile i of an item:
// [product,block,tile,16].
INLINE void operands(const int A, const int B, const call *k, tile t, int i, int count, float *to) {
	const int height = points(A), across = points(B);
	geometry g = k->c->g;
	int count_in = g.in / BLOCK, top = t.top - g.pad[0], left = t.left - g.pad[1];
	const float *blocks[MAX_BLOCKS];
	blocks_of(k, t.image, blocks);
	int up = top < 0 ? -top : 0, down = k->h - top < height ? k->h - top : height;
	int from = left < 0 ? -left : 0, until = k->w - left < across ? k->w - left : across;
	int inside = up == 0 && from == 0 && down == height && until == across;
	float padded[MAX_POINTS * MAX_POINTS * BLOCK];
	if (!inside) memset(padded, 0, sizeof(float) * height * across * BLOCK);
	for (int b = 0; b < count_in; b++, to += (size_t)count * BLOCK) {
		const float *x = blocks[b];
		size_t row = (size_t)k->w * BLOCK;
		if (inside) {
			x += top * row + left * BLOCK;
		} else {
			for (int r = up; r < down; r++) {
				memcpy(padded + (r * across + from) * BLOCK, x + (top + r) * row + (left + from) * BLOCK, sizeof(float) * (until - from) * BLOCK);
			}
			x = padded;
			row = across * BLOCK;
		}
		for (int half = 0; half < BLOCK; half += LANES) {
			transform_inputs(A, B, x + half, row, to + (size_t)i * BLOCK + half, next_operands(k->c, count));
		}
	}
}

// multiply_tiles sets the products [panel,n,count,channels] from operands
// [n,in,count]: point by point and chunk by chunk of the input, so that the
// operands stay in the cache for all panels, and each panel's weights for all tiles.
static void multiply_tiles(const conv *c, int n, int count, const float *operands, float *to) {
	int kernels = (count + PLACES - 1) / PLACES;
	const float *blocks[MAX_BLOCKS];
	for (int b = 0; b < c->g.in / BLOCK; b++) blocks[b] = operands + (size_t)b * count * BLOCK;
	for (int q = 0; q < n; q++) {
		size_t x = q * next_operands(c, count);
		for (int first = 0; first < c->g.in / BLOCK; first += CHUNK) {
			walk s = {blocks + first, chunk(c, first), 1, 1, 0, 0, first > 0};
			for (int p = 0; p < panels(c); p++) {
				int v = width(c, p), channels = v * LANES;
				float *y = to + (p * n + q) * next_products(count);
				for (int i = 0; i < kernels; i++) {
					int begin = i * count / kernels, end = (i + 1) * count / kernels;
					products[end - begin - 1][v - 1](x + begin * BLOCK, &s, winograd(c, p, q, first), NULL, y + begin * channels, channels, LANES);
				}
			}
		}
	}
}

// tiled computes the tiles of one item for a kernel of A×B: it transforms their
// inputs and, panel by panel, multiplies and transforms back.
INLINE void tiled(const int A, const int B, const call *k, size_t item, float *scratch) {
	const int n = points(A) * points(B);
	const conv *c = k->c;
	size_t first = item * k->count, left = (size_t)k->n * k->rows * k->columns - first;
	int count = left < (size_t)k->count ? (int)left : k->count;
	float *product = scratch + n * next_operands(c, count);
	for (int i = 0; i < count; i++) operands(A, B, k, tile_at(A, B, k, first + i), i, count, scratch);
	multiply_tiles(c, n, count, scratch, product);
	for (int p = 0; p < panels(c); p++, product += n * next_products(count)) {
		int v = width(c, p), channels = v * LANES;
		for (int i = 0; i < v; i++) {
			vec bias = load(c->bias + (p * PANEL + i) * LANES);
			for (int j = 0; j < count; j++) {
				tile t = tile_at(A, B, k, first + j);
				float *y = output(k, t.image, p * PANEL + i) + ((size_t)t.top * k->ow + t.left) * BLOCK;
				transform_products(A, B, 1, product + j * channels + i * LANES, next_products(count), bias,
				                   y, (size_t)k->ow * BLOCK, k->oh - t.top, k->ow - t.left);
			}
		}
	}
}

// A function for each kernel, for the compiler to know its sizes.
#define TILED(A, B) \
	TARGET static void tiled_##A##_##B(const call *k, size_t item, float *scratch) { tiled(A, B, k, item, scratch); }
TILED(3, 3)
TILED(5, 5)
TILED(1, 3)
TILED(3, 1)
TILED(1, 7)
TILED(7, 1)

// ---- images in planes

typedef int lanes __attribute__((vector_size(LANES * 4)));

#define LOW(i, s) ((i) & (s) ? (i) - (s) + LANES : (i))
#define HIGH(i, s) ((i) & (s) ? (i) + LANES : (i) + (s))
#define LANES4(M, i, s) M(i, s), M((i) + 1, s), M((i) + 2, s), M((i) + 3, s)
#if LANES == 16
#define ALL(M, s) (lanes){LANES4(M, 0, s), LANES4(M, 4, s), LANES4(M, 8, s), LANES4(M, 12, s)}
#else
#define ALL(M, s) (lanes){LANES4(M, 0, s), LANES4(M, 4, s)}
#endif

// EXCHANGE swaps the lanes with bit s of every vector without it and the others
// of its partner. The choice is one of literal constants, for the compiler to take
// the one instruction that there is for it.
#define EXCHANGE(s)                                                       \
	UNROLL for (int i = 0; i < LANES; i++) {                          \
		if (i & (s)) continue;                                    \
		vec a = v[i], b = v[i + (s)];                             \
		v[i] = (vec)__builtin_shuffle(a, b, ALL(LOW, s));         \
		v[i + (s)] = (vec)__builtin_shuffle(a, b, ALL(HIGH, s));  \
	}

INLINE void transpose(vec *v) {
#if LANES == 16
	EXCHANGE(8)
#endif
	EXCHANGE(4)
	EXCHANGE(2)
	EXCHANGE(1)
}

// to_block brings n pixels of 16 planes together: [n,16].
INLINE void to_block(const float *x, size_t plane, int n, float *to) {
	for (int half = 0; half < BLOCK; half += LANES, x += LANES * plane, to += LANES) {
		for (int i = 0; i < n; i += LANES) {
			if (n < LANES) { // few
				for (int p = 0; p < n; p++) {
					for (int c = 0; c < LANES; c++) to[p * BLOCK + c] = x[c * plane + p];
				}
				break;
			}
			int at = i < n - LANES ? i : n - LANES; // some pixels twice, rather than few
			vec v[LANES];
			UNROLL for (int c = 0; c < LANES; c++) v[c] = load(x + c * plane + at);
			transpose(v);
			UNROLL for (int p = 0; p < LANES; p++) store(to + (at + p) * BLOCK, v[p]);
		}
	}
}

// to_planes is the reverse.
INLINE void to_planes(const float *x, int n, float *to, size_t plane) {
	for (int half = 0; half < BLOCK; half += LANES, x += LANES, to += LANES * plane) {
		for (int i = 0; i < n; i += LANES) {
			if (n < LANES) {
				for (int p = 0; p < n; p++) {
					for (int c = 0; c < LANES; c++) to[c * plane + p] = x[p * BLOCK + c];
				}
				break;
			}
			int at = i < n - LANES ? i : n - LANES;
			vec v[LANES];
			UNROLL for (int p = 0; p < LANES; p++) v[p] = load(x + (at + p) * BLOCK);
			transpose(v);
			UNROLL for (int c = 0; c < LANES; c++) store(to + c * plane + at, v[c]);
		}
	}
}

enum { SIDE = 3 }; // of the kernels for planes

// planes computes a rectangle of tiles, k->length rows of k->count: block by
// block its inputs are brought together and transformed, panel by panel its
// outputs are multiplied, transformed and taken apart.
TARGET static void planes(const call *k, size_t item, float *scratch) {
	const int n = points(SIDE) * points(SIDE);
	const conv *c = k->c;
	geometry g = c->g;
	int down = (k->rows + k->length - 1) / k->length, across = (k->columns + k->count - 1) / k->count;
	int image = item / (down * across), first = item / across % down * k->length, left = item % across * k->count;
	int rows = k->rows - first < k->length ? k->rows - first : k->length, columns = k->columns - left < k->count ? k->columns - left : k->count;
	int count = rows * columns, height = rows * OUTPUTS, wide = columns * OUTPUTS, row = wide + SIDE - 1;
	int y0 = first * OUTPUTS, x0 = left * OUTPUTS; // of the outputs; inputs start before

	size_t pixels = (size_t)(height + SIDE - 1) * row * BLOCK;
	float *region = scratch, *operand = region + pixels, *product = operand + n * next_operands(c, count);
	float *result = product + n * panels(c) * next_products(count);
	size_t plane = (size_t)k->h * k->w;
	memset(region, 0, sizeof(float) * pixels); // the padding
	int from = x0 - g.pad[1] < 0 ? g.pad[1] - x0 : 0, until = k->w - (x0 - g.pad[1]) < row ? k->w - (x0 - g.pad[1]) : row;
	for (int b = 0; b < g.in / BLOCK; b++) {
		const float *x = k->parts->x + ((size_t)image * g.in + b * BLOCK) * plane;
		for (int r = 0; r < height + SIDE - 1; r++) {
			int y = y0 - g.pad[0] + r;
			if (y >= 0 && y < k->h) to_block(x + (size_t)y * k->w + x0 - g.pad[1] + from, plane, until - from, region + ((size_t)r * row + from) * BLOCK);
		}
		for (int t = 0; t < count; t++) {
			const float *at = region + ((size_t)(t / columns) * row + t % columns) * OUTPUTS * BLOCK;
			for (int half = 0; half < BLOCK; half += LANES) {
				transform_inputs(SIDE, SIDE, at + half, (size_t)row * BLOCK, operand + ((size_t)b * count + t) * BLOCK + half, next_operands(c, count));
			}
		}
	}
	if (height > k->oh - y0) height = k->oh - y0;
	int valid = k->ow - x0 < wide ? k->ow - x0 : wide;
	plane = (size_t)k->oh * k->ow;
	multiply_tiles(c, n, count, operand, product);
	for (int p = 0; p < panels(c); p++, product += n * next_products(count)) {
		int v = width(c, p), channels = v * LANES;
		for (int i = 0; i < v; i++) {
			float *block = result + (size_t)(i / HALVES) * rows * OUTPUTS * wide * BLOCK + i % HALVES * LANES;
			for (int t = 0; t < count; t++) {
				transform_products(SIDE, SIDE, 0, product + t * channels + i * LANES, next_products(count), load(c->bias + (p * PANEL + i) * LANES),
				                   block + ((size_t)(t / columns) * wide + t % columns) * OUTPUTS * BLOCK, (size_t)wide * BLOCK, OUTPUTS, OUTPUTS);
			}
		}
		for (int b = 0; b < v / HALVES; b++) {
			float *y = k->y + ((size_t)image * g.out + (size_t)(p * PANEL / HALVES + b) * BLOCK) * plane + (size_t)y0 * k->ow + x0;
			for (int r = 0; r < height; r++) {
				to_planes(result + ((size_t)b * rows * OUTPUTS + r) * wide * BLOCK, valid, y + (size_t)r * k->ow, plane);
			}
		}
	}
}

// ---- all of it

static void compute(const call *k, size_t item, float *scratch) {
	geometry g = k->c->g;
	if (k->planes) {
		planes(k, item, scratch);
		return;
	}
	if (!by_winograd(g)) {
		direct(k, item);
		return;
	}
	switch (10 * g.kernel[0] + g.kernel[1]) {
	case 33: tiled_3_3(k, item, scratch); break;
	case 55: tiled_5_5(k, item, scratch); break;
	case 13: tiled_1_3(k, item, scratch); break;
	case 31: tiled_3_1(k, item, scratch); break;
	case 17: tiled_1_7(k, item, scratch); break;
	case 71: tiled_7_1(k, item, scratch); break;
	}
}

static void work(void *arg, size_t worker) {
	call *k = arg;
	for (size_t item; (item = atomic_fetch_add(&k->next, 1)) < k->items;) compute(k, item, k->scratch + worker * k->space);
}

// plan_tiles divides Winograd's tiles into items: enough for every worker, and
// enough tiles that the weights are worth loading.
static void plan_tiles(call *k, size_t workers) {
	geometry g = k->c->g;
	k->rows = (k->oh + outputs(g.kernel[0]) - 1) / outputs(g.kernel[0]);
	k->columns = (k->ow + outputs(g.kernel[1]) - 1) / outputs(g.kernel[1]);
	size_t all = (size_t)k->n * k->rows * k->columns, n = products_of(g);
	size_t share = (all + workers - 1) / workers, least = PLACES / 2;
	size_t most = (RECTANGLE + PLACES - 1) / PLACES * PLACES; // whole kernels
	if (most > share) most = share > least ? share : least;
	size_t items = (all + most - 1) / most;
	k->count = (all + items - 1) / items;
	k->items = (all + k->count - 1) / k->count;
	k->space = n * (next_operands(k->c, k->count) + panels(k->c) * next_products(k->count));
}

// plan_rows divides a direct convolution's rows, cut into kernels, into items.
static void plan_rows(call *k) {
	int one = k->c->g.stride == 1; // a 1×1 convolution, to which an image is one row
	k->rows = one ? 1 : k->oh;
	k->length = one ? k->oh * k->ow : k->ow;
	k->columns = (k->length + PLACES - 1) / PLACES;
	k->count = GROUP / PLACES;
	k->items = (size_t)k->n * ((k->rows * k->columns + k->count - 1) / k->count);
}

// plan_rectangles divides the tiles of each image into rectangles.
static void plan_rectangles(call *k) {
	k->rows = (k->oh + OUTPUTS - 1) / OUTPUTS;
	k->columns = (k->ow + OUTPUTS - 1) / OUTPUTS;
	int parts = (k->columns + RECTANGLE - 1) / RECTANGLE;
	k->count = (k->columns + parts - 1) / parts;
	k->length = RECTANGLE / k->count < k->rows ? RECTANGLE / k->count : k->rows;
	parts = (k->rows + k->length - 1) / k->length;
	k->length = (k->rows + parts - 1) / parts;
	k->items = (size_t)k->n * parts * ((k->columns + k->count - 1) / k->count);
	size_t n = products_of(k->c->g), count = (size_t)k->count * k->length;
	size_t region = (k->length * OUTPUTS + SIDE - 1) * (size_t)(k->count * OUTPUTS + SIDE - 1) * BLOCK;
	k->space = region + n * (next_operands(k->c, count) + panels(k->c) * next_products(count)) + count * OUTPUTS * OUTPUTS * PANEL * LANES;
}

// start runs a call, laid out for a team, with all of it.
static int start(call *k, team t) {
	k->space = (k->space + 15) / 16 * 16;
	size_t workers = k->items < t.size ? k->items : t.size;
	if (k->space) {
		k->scratch = aligned_alloc(64, sizeof(float) * k->space * workers);
		if (!k->scratch) return 1;
	}
	t.run(t.of, work, workers, k);
	free(k->scratch);
	return 0;
}

static int run(const conv *c, const part *parts, int n, int h, int w, float *y, team t) {
	call k = {.c = c, .parts = parts, .y = y, .n = n, .h = h, .w = w, .oh = conv_size(c->g, 0, h), .ow = conv_size(c->g, 1, w)};
	if (n == 0 || k.oh == 0 || k.ow == 0) return 0;
	if (by_winograd(c->g)) {
		plan_tiles(&k, t.size);
	} else {
		plan_rows(&k);
	}
	return start(&k, t);
}

static int run_planes(const conv *c, const float *x, int n, int h, int w, float *y, team t) {
	part all = {x, c->g.in / BLOCK};
	call k = {.c = c, .parts = &all, .y = y, .n = n, .h = h, .w = w, .oh = conv_size(c->g, 0, h), .ow = conv_size(c->g, 1, w), .planes = 1};
	if (n == 0 || k.oh == 0 || k.ow == 0) return 0;
	plan_rectangles(&k);
	return start(&k, t);
}

// ---- pools

typedef struct {
	geometry g;
	int h, w, oh, ow;
	const float *x;
	float *y;
	size_t blocks;
	atomic_size_t next;
	float *scratch; // a row of x for each worker
} pooling;

INLINE vec reduce(const int average, vec a, vec b) {
	if (average) return a + b;
	return greater(a, b);
}

// pool_row reduces the rows of the windows to one, and that to the outputs.
INLINE void pool_row(const int average, const pooling *k, const float *x, int i, float *row, float *y) {
	geometry g = k->g;
	size_t next = (size_t)k->w * BLOCK;
	int top = i * g.stride - g.pad[0], up = top < 0 ? 0 : top, rows = (top + g.kernel[0] < k->h ? top + g.kernel[0] : k->h) - up;
	x += up * next;
	for (size_t c = 0; c < next; c += LANES) {
		vec all = load(x + c);
		for (int r = 1; r < rows; r++) all = reduce(average, all, load(x + r * next + c));
		store(row + c, all);
	}
	for (int j = 0; j < k->ow; j++, y += BLOCK) {
		int left = j * g.stride - g.pad[1], from = left < 0 ? 0 : left, columns = (left + g.kernel[1] < k->w ? left + g.kernel[1] : k->w) - from;
		float area = rows * columns;
		UNROLL for (int v = 0; v < BLOCK; v += LANES) {
			const float *at = row + (size_t)from * BLOCK + v;
			vec all = load(at);
			for (int c = 1; c < columns; c++) all = reduce(average, all, load(at + c * BLOCK));
			if (average) all /= area;
			store(y + v, all);
		}
	}
}

INLINE void pool_blocks(const int average, pooling *k, size_t worker) {
	for (size_t b; (b = atomic_fetch_add(&k->next, 1)) < k->blocks;) {
		const float *x = k->x + b * k->h * k->w * BLOCK;
		float *y = k->y + b * k->oh * k->ow * BLOCK, *row = k->scratch + worker * k->w * BLOCK;
		for (int i = 0; i < k->oh; i++, y += k->ow * BLOCK) pool_row(average, k, x, i, row, y);
	}
}

TARGET static void maxima(void *arg, size_t worker) { pool_blocks(0, arg, worker); }
TARGET static void averages(void *arg, size_t worker) { pool_blocks(1, arg, worker); }

static int pool(geometry g, int average, const float *x, int n, int h, int w, float *y, team t) {
	pooling k = {.g = g, .h = h, .w = w, .oh = conv_size(g, 0, h), .ow = conv_size(g, 1, w), .x = x, .y = y, .blocks = n};
	if (n == 0 || k.oh == 0 || k.ow == 0) return 0;
	size_t workers = k.blocks < t.size ? k.blocks : t.size;
	k.scratch = aligned_alloc(64, sizeof(float) * BLOCK * w * workers);
	if (!k.scratch) return 1;
	t.run(t.of, average ? averages : maxima, workers, &k);
	free(k.scratch);
	return 0;
}

const implementation JOIN(implementation, NAME) = {STRING(NAME), prepare, run, run_planes, pool};
