//go:build linux && amd64

#include "operators.h"

#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conv.h"
#include "norm.h"
#include "ort_api.h"

#define TRY(call)                             \
	do {                                  \
		OrtStatus *status_ = (call);  \
		if (status_) return status_;  \
	} while (0)

static OrtStatus *fail(const OrtApi *api, const char *format, ...) {
	char message[400];
	va_list args;
	va_start(args, format);
	vsnprintf(message, sizeof message, format, args);
	va_end(args);
	return api->CreateStatus(ORT_FAIL, message);
}

typedef enum { CONV, MAX_POOL, AVERAGE_POOL, PLANES, GROUP_NORM } kind;

// Inputs of CONV, before the parts of x.
enum { WEIGHT, GAMMA, BETA, MEAN, VARIANCE, PARTS };

// Inputs of PLANES; the bias may be absent.
enum { PLANES_X, PLANES_WEIGHT, PLANES_BIAS, PLANES_INPUTS };

// Inputs of GROUP_NORM.
enum { NORM_X, NORM_SCALE, NORM_SHIFT, NORM_INPUTS };

// An operator is one kind of node; a node is one of them in a graph.
typedef struct {
	OrtCustomOp op; // the first member, to which the runtime points
	kind kind;
	const char *name;
} operator;

typedef struct {
	const OrtApi *api;
	const implementation *implementation;
	kind kind;
	geometry g;
	conv *conv; // of CONV and PLANES
	int64_t groups;
	float eps;
} node;

// ---- arrays

enum { RANK = 5, MAX_PARTS = 16 };

typedef struct {
	float *data;
	int64_t shape[RANK];
	size_t rank;
} array;

static OrtStatus *array_of(const OrtApi *api, const OrtValue *value, array *a) {
	OrtShape *shape;
	TRY(api->GetTensorTypeAndShape(value, &shape));
	OrtStatus *status = api->GetDimensionsCount(shape, &a->rank);
	if (!status && a->rank > RANK) status = fail(api, "an array of %zu axes", a->rank);
	if (!status) status = api->GetDimensions(shape, a->shape, a->rank);
	api->ReleaseTensorTypeAndShapeInfo(shape);
	if (status) return status;
	return api->GetTensorMutableData((OrtValue *)value, (void **)&a->data);
}

// weight is a constant input: of rank axes, the first of length n.
static OrtStatus *weight(const OrtApi *api, const OrtKernelInfo *info, size_t index, size_t rank, int64_t n, array *a) {
	int constant = 0;
	const OrtValue *value = NULL;
	TRY(api->KernelInfoGetConstantInput_tensor(info, index, &constant, &value));
	if (!constant || !value) return fail(api, "input %zu is not constant", index);
	TRY(array_of(api, value, a));
	if (a->rank != rank || (n && a->shape[0] != n)) {
		return fail(api, "input %zu has %zu axes and a first length of %lld", index, a->rank, a->rank ? (long long)a->shape[0] : 0LL);
	}
	return NULL;
}

static OrtStatus *integers(const OrtApi *api, const OrtKernelInfo *info, const char *name, int *to, size_t n) {
	int64_t values[2];
	size_t length = n;
	TRY(api->KernelInfoGetAttributeArray_int64(info, name, values, &length));
	if (length != n) return fail(api, "%s has %zu values, not %zu", name, length, n);
	for (size_t i = 0; i < n; i++) to[i] = values[i];
	return NULL;
}

// ---- nodes

// prepare lays out the weights times scale, both of which are freed.
static OrtStatus *prepare(node *k, const array *w, int (*can)(geometry), double *scale, double *bias) {
	geometry *g = &k->g;
	OrtStatus *status = NULL;
	if (w->shape[2] != g->kernel[0] || w->shape[3] != g->kernel[1] || !can(*g)) {
		status = fail(k->api, "a convolution of %d to %d channels, kernel %d×%d, stride %d, padding %d and %d is not one of those that are computed in blocks of %d channels",
		              g->in, g->out, g->kernel[0], g->kernel[1], g->stride, g->pad[0], g->pad[1], BLOCK);
	} else {
		if (scale && bias) k->conv = k->implementation->prepare(*g, w->data, scale, bias);
		if (!k->conv) status = fail(k->api, "no memory for weights of %d×%d×%d×%d", g->out, g->in, g->kernel[0], g->kernel[1]);
	}
	free(scale);
	free(bias);
	return status;
}

// weights reads the weight of a convolution, which tells its channels.
static OrtStatus *weights(node *k, const OrtKernelInfo *info, size_t index, array *w) {
	TRY(weight(k->api, info, index, 4, 0, w));
	k->g.out = w->shape[0];
	k->g.in = w->shape[1];
	return NULL;
}

// prepare_blocks folds the batch norm into the weights, in float64.
static OrtStatus *prepare_blocks(node *k, const OrtKernelInfo *info) {
	array a[PARTS];
	float eps;
	TRY(k->api->KernelInfoGetAttribute_float(info, "epsilon", &eps));
	TRY(weights(k, info, WEIGHT, &a[WEIGHT]));
	int out = k->g.out;
	for (int i = GAMMA; i < PARTS; i++) TRY(weight(k->api, info, i, 1, out, &a[i]));
	double *scale = malloc(sizeof(double) * out), *bias = malloc(sizeof(double) * out);
	for (int o = 0; scale && bias && o < out; o++) {
		scale[o] = a[GAMMA].data[o] / sqrt((double)a[VARIANCE].data[o] + eps);
		bias[o] = a[BETA].data[o] - a[MEAN].data[o] * scale[o];
	}
	return prepare(k, &a[WEIGHT], conv_can, scale, bias);
}

static OrtStatus *prepare_planes(node *k, const OrtKernelInfo *info) {
	size_t count;
	array w, b = {0};
	TRY(weights(k, info, PLANES_WEIGHT, &w));
	int out = k->g.out;
	TRY(k->api->KernelInfo_GetInputCount(info, &count));
	if (count > PLANES_BIAS) TRY(weight(k->api, info, PLANES_BIAS, 1, out, &b));
	double *scale = malloc(sizeof(double) * out), *bias = malloc(sizeof(double) * out);
	for (int o = 0; scale && bias && o < out; o++) {
		scale[o] = 1;
		bias[o] = b.data ? b.data[o] : 0;
	}
	return prepare(k, &w, conv_can_planes, scale, bias);
}

static OrtStatus *read_groups(node *k, const OrtKernelInfo *info) {
	TRY(k->api->KernelInfoGetAttribute_int64(info, "groups", &k->groups));
	TRY(k->api->KernelInfoGetAttribute_float(info, "epsilon", &k->eps));
	return k->groups < 1 ? fail(k->api, "a norm of %lld groups", (long long)k->groups) : NULL;
}

static OrtStatus *read_geometry(node *k, const OrtKernelInfo *info) {
	int64_t stride;
	TRY(integers(k->api, info, "kernel_shape", k->g.kernel, 2));
	TRY(integers(k->api, info, "pads", k->g.pad, 2));
	TRY(k->api->KernelInfoGetAttribute_int64(info, "stride", &stride));
	k->g.stride = stride;
	if (k->kind == CONV) return prepare_blocks(k, info);
	if (k->kind == PLANES) return prepare_planes(k, info);
	for (int i = 0; i < 2; i++) {
		if (stride < 1 || k->g.kernel[i] < 1 || k->g.pad[i] < 0 || k->g.pad[i] >= k->g.kernel[i]) {
			return fail(k->api, "a pool of kernel %d, stride %d, padding %d", k->g.kernel[i], k->g.stride, k->g.pad[i]);
		}
	}
	return NULL;
}

static void destroy(void *kernel) {
	node *k = kernel;
	conv_free(k->conv);
	free(k);
}

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **kernel) {
	node *k = calloc(1, sizeof *k);
	if (!k) return fail(api, "no memory");
	k->api = api;
	k->implementation = conv_implementation();
	k->kind = ((const operator *)op)->kind;
	OrtStatus *(*read)(node *, const OrtKernelInfo *) = k->kind == GROUP_NORM ? read_groups : read_geometry;
	OrtStatus *status = k->implementation ? read(k, info) : fail(api, "no kernels for this processor, or SAGBENCH_KERNELS allows for none");
	if (status) {
		destroy(k);
		return status;
	}
	*kernel = k;
	return NULL;
}

// The runtime's threads are the team.
typedef struct {
	const OrtApi *api;
	const OrtKernelContext *context;
	OrtStatus *status;
} threads;

static void parallel(void *of, void (*job)(void *, size_t), size_t n, void *arg) {
	threads *t = of;
	t->status = t->api->KernelContext_ParallelFor(t->context, job, n, 0, arg);
}

static team all_threads(threads *t) { return (team){parallel, t, sysconf(_SC_NPROCESSORS_ONLN)}; }

static OrtStatus *input(const OrtApi *api, const OrtKernelContext *context, size_t index, array *x) {
	const OrtValue *value;
	TRY(api->KernelContext_GetInput(context, index, &value));
	return array_of(api, value, x);
}

// output is y of the given shape.
static OrtStatus *output(const OrtApi *api, OrtKernelContext *context, const int64_t *shape, size_t rank, float **y) {
	OrtValue *value;
	TRY(api->KernelContext_GetOutput(context, 0, shape, rank, &value));
	return api->GetTensorMutableData(value, (void **)y);
}

// image checks that x is one of the given number of axes: 5 in blocks, 4 not.
static OrtStatus *image(const OrtApi *api, const array *x, size_t rank) {
	if (x->rank == rank && (rank == 4 || x->shape[4] == BLOCK)) return NULL;
	return fail(api, "an input of %zu axes; expected %s", x->rank, rank == 4 ? "[N,C,H,W]" : "blocks of 16 channels, [N,C/16,H,W,16]");
}

static OrtStatus *convolve(node *k, OrtKernelContext *context) {
	const OrtApi *api = k->api;
	geometry g = k->g;
	size_t count;
	TRY(api->KernelContext_GetInputCount(context, &count));
	part parts[MAX_PARTS];
	if (count < PARTS + 1 || count > PARTS + MAX_PARTS) return fail(api, "%zu inputs; expected weights and 1 to %d images", count, MAX_PARTS);
	count -= PARTS;
	array first = {0}, x;
	int64_t blocks = 0;
	for (size_t i = 0; i < count; i++) {
		TRY(input(api, context, PARTS + i, &x));
		TRY(image(api, &x, g.in < BLOCK ? 4 : 5));
		if (i == 0) first = x;
		if (x.shape[0] != first.shape[0] || x.shape[2] != first.shape[2] || x.shape[3] != first.shape[3]) {
			return fail(api, "image %zu differs from the first in more than channels", i);
		}
		parts[i] = (part){x.data, x.shape[1]};
		blocks += x.shape[1];
	}
	if (blocks != (g.in < BLOCK ? g.in : g.in / BLOCK)) return fail(api, "%lld blocks of channels for a convolution from %d channels", (long long)blocks, g.in);
	int n = first.shape[0], h = first.shape[2], w = first.shape[3];
	float *y;
	int64_t shape[] = {n, g.out / BLOCK, conv_size(g, 0, h), conv_size(g, 1, w), BLOCK};
	TRY(output(api, context, shape, 5, &y));
	threads t = {api, context, NULL};
	if (k->implementation->run(k->conv, parts, n, h, w, y, all_threads(&t))) return fail(api, "no memory to convolve %d images of %d×%d", n, h, w);
	return t.status;
}

static OrtStatus *pool(node *k, OrtKernelContext *context) {
	const OrtApi *api = k->api;
	array x;
	TRY(input(api, context, 0, &x));
	TRY(image(api, &x, 5));
	int n = x.shape[0], blocks = x.shape[1], h = x.shape[2], w = x.shape[3];
	float *y;
	int64_t shape[] = {n, blocks, conv_size(k->g, 0, h), conv_size(k->g, 1, w), BLOCK};
	TRY(output(api, context, shape, 5, &y));
	threads t = {api, context, NULL};
	if (k->implementation->pool(k->g, k->kind == AVERAGE_POOL, x.data, n * blocks, h, w, y, all_threads(&t))) {
		return fail(api, "no memory to pool %d images of %d×%d", n, h, w);
	}
	return t.status;
}

static OrtStatus *convolve_planes(node *k, OrtKernelContext *context) {
	const OrtApi *api = k->api;
	geometry g = k->g;
	array x;
	TRY(input(api, context, PLANES_X, &x));
	TRY(image(api, &x, 4));
	if (x.shape[1] != g.in) return fail(api, "an image of %lld channels for a convolution from %d", (long long)x.shape[1], g.in);
	int n = x.shape[0], h = x.shape[2], w = x.shape[3];
	float *y;
	int64_t shape[] = {n, g.out, conv_size(g, 0, h), conv_size(g, 1, w)};
	TRY(output(api, context, shape, 4, &y));
	threads t = {api, context, NULL};
	if (k->implementation->run_planes(k->conv, x.data, n, h, w, y, all_threads(&t))) return fail(api, "no memory to convolve %d images of %d×%d", n, h, w);
	return t.status;
}

static OrtStatus *normalize(node *k, OrtKernelContext *context) {
	const OrtApi *api = k->api;
	array x, affine[NORM_INPUTS];
	TRY(input(api, context, NORM_X, &x));
	if (x.rank < 2) return fail(api, "an input of %zu axes; expected [N,C,…]", x.rank);
	int64_t n = x.shape[0], c = x.shape[1], plane = 1;
	for (size_t i = 2; i < x.rank; i++) plane *= x.shape[i];
	if (c % k->groups) return fail(api, "%lld channels in %lld groups", (long long)c, (long long)k->groups);
	for (int i = NORM_SCALE; i < NORM_INPUTS; i++) {
		array *a = &affine[i];
		TRY(input(api, context, i, a));
		int each = a->rank == 2;
		if (a->rank != affine[NORM_SCALE].rank || a->rank < 1 || a->rank > 2 || a->shape[each] != c || (each && a->shape[0] != n)) {
			return fail(api, "input %d is not [%lld], nor [%lld,%lld] as the scale", i, (long long)c, (long long)n, (long long)c);
		}
	}
	float *y;
	TRY(output(api, context, x.shape, x.rank, &y));
	threads t = {api, context, NULL};
	group_norm(x.data, n, c, plane, k->groups, k->eps, affine[NORM_SCALE].data, affine[NORM_SHIFT].data,
	           affine[NORM_SCALE].rank == 2, y, all_threads(&t));
	return t.status;
}

static OrtStatus *compute(void *kernel, OrtKernelContext *context) {
	node *k = kernel;
	switch (k->kind) {
	case CONV: return convolve(k, context);
	case PLANES: return convolve_planes(k, context);
	case GROUP_NORM: return normalize(k, context);
	default: return pool(k, context);
	}
}

// ---- the operators

static const char *name_of(const OrtCustomOp *op) { return ((const operator *)op)->name; }
static const char *provider(const OrtCustomOp *op) { (void)op; return NULL; } // the CPU
static size_t inputs(const OrtCustomOp *op) {
	switch (((const operator *)op)->kind) {
	case CONV: return PARTS + 1;
	case PLANES: return PLANES_INPUTS;
	case GROUP_NORM: return NORM_INPUTS;
	default: return 1;
	}
}
static size_t outputs(const OrtCustomOp *op) { (void)op; return 1; }
static int type(const OrtCustomOp *op, size_t i) { (void)op, (void)i; return ORT_FLOAT; }
static int input_kind(const OrtCustomOp *op, size_t i) {
	kind k = ((const operator *)op)->kind;
	return k == CONV && i == PARTS ? ORT_VARIADIC : k == PLANES && i == PLANES_BIAS ? ORT_OPTIONAL : ORT_REQUIRED;
}
static int output_kind(const OrtCustomOp *op, size_t i) { (void)op, (void)i; return ORT_REQUIRED; }
static int memory(const OrtCustomOp *op, size_t i) { (void)op, (void)i; return 0; } // the provider's own
static int one(const OrtCustomOp *op) { (void)op; return 1; }

#define OPERATOR(k, n)                                                                                           \
	{{.version = API_VERSION, .GetName = name_of, .GetExecutionProviderType = provider,                      \
	  .GetInputType = type, .GetInputTypeCount = inputs, .GetOutputType = type, .GetOutputTypeCount = outputs, \
	  .KernelDestroy = destroy, .GetInputMemoryType = memory, .GetInputCharacteristic = input_kind, .GetOutputCharacteristic = output_kind,     \
	  .GetVariadicInputMinArity = one, .GetVariadicInputHomogeneity = one, .GetVariadicOutputMinArity = one, \
	  .GetVariadicOutputHomogeneity = one, .CreateKernelV2 = create, .KernelComputeV2 = compute,             \
	  .GetStartVersion = one, .GetEndVersion = one},                                                          \
	 k, n}

static const operator all[] = {
	OPERATOR(CONV, "ConvBatchNormRelu"),
	OPERATOR(MAX_POOL, "MaxPool"),
	OPERATOR(AVERAGE_POOL, "AveragePool"),
	OPERATOR(PLANES, "Conv"),
	OPERATOR(GROUP_NORM, "GroupNorm"),
};

const char *operators_name(void) {
	const implementation *i = conv_implementation();
	return i ? i->name : NULL;
}

char *operators_add(void *get_api_base, void *options) {
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static OrtCustomOpDomain *domain; // sessions keep pointing to it
	const OrtApi *api = ((const OrtApiBase *(*)(void))get_api_base)()->GetApi(API_VERSION);
	if (!api) return strdup("it has no interface of version 18");
	OrtStatus *status = NULL;
	pthread_mutex_lock(&lock);
	if (!domain) {
		status = api->CreateCustomOpDomain("sagbench", &domain);
		for (size_t i = 0; !status && i < sizeof all / sizeof *all; i++) status = api->CustomOpDomain_Add(domain, &all[i].op);
	}
	if (!status) status = api->AddCustomOpDomain(options, domain);
	pthread_mutex_unlock(&lock);
	if (!status) return NULL;
	char *message = strdup(api->GetErrorMessage(status));
	api->ReleaseStatus(status);
	return message;
}
