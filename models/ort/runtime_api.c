#include "runtime_api.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct OrtStatus OrtStatus;
typedef struct OrtEnv OrtEnv;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtEpDevice OrtEpDevice;
typedef struct OrtHardwareDevice OrtHardwareDevice;
typedef struct OrtKeyValuePairs OrtKeyValuePairs;
typedef struct OrtEpAssignedSubgraph OrtEpAssignedSubgraph;
typedef struct OrtEpAssignedNode OrtEpAssignedNode;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtIoBinding OrtIoBinding;
typedef struct OrtValue OrtValue;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtAllocator OrtAllocator;

enum { API_VERSION = 25 }; // the first one with all of the functions below

// The places of functions in OrtApi, which they keep in every release.
enum {
	GET_ERROR_MESSAGE = 2, CREATE_ENV = 3, TENSOR_DATA = 51, CPU_MEMORY_INFO = 69, ALLOCATOR_FREE = 76, DEFAULT_ALLOCATOR = 78,
	RELEASE_STATUS = 93, RELEASE_MEMORY_INFO = 94, RELEASE_VALUE = 96,
	RUN_WITH_BINDING = 133, CREATE_BINDING, RELEASE_BINDING, BIND_INPUT, BIND_OUTPUT, BIND_OUTPUT_TO_DEVICE, BOUND_NAMES, BOUND_VALUES,
	TENSOR_MEMORY_INFO = 194, MEMORY_DEVICE_TYPE = 225, OUTPUT_MEMORY_INFO = 381, GET_KEY_VALUE_PAIRS = 298, GET_EP_DEVICES = 303, APPEND_EXECUTION_PROVIDER_V2 = 304,
	HARDWARE_TYPE = 307, HARDWARE_VENDOR_ID, HARDWARE_VENDOR, HARDWARE_DEVICE_ID, HARDWARE_METADATA,
	EP_NAME = 312, EP_VENDOR, EP_METADATA, EP_OPTIONS, EP_DEVICE,
	GET_ASSIGNMENT = 407, SUBGRAPH_EP, SUBGRAPH_NODES, NODE_NAME, NODE_DOMAIN, NODE_OPERATOR, ENABLE_PROFILING = 415,
};

static void *const *api; // OrtApi is a struct of nothing but pointers to functions
static OrtEnv *env;

#define CALL(place, result, ...) ((result (*)(__VA_ARGS__))api[place])

static char *taken(OrtStatus *status) {
	if (!status) return NULL;
	char *message = strdup(CALL(GET_ERROR_MESSAGE, const char *, const OrtStatus *)(status));
	CALL(RELEASE_STATUS, void, OrtStatus *)(status);
	return message;
}

#define TRY(call)                               \
	do {                                    \
		char *message_ = taken(call);   \
		if (message_) return message_;  \
	} while (0)

void *api_base(const char *path) {
	void *handle = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
	void *base = handle ? dlsym(handle, "OrtGetApiBase") : NULL;
	if (handle) dlclose(handle); // the binding holds it
	return base;
}

char *api_open(void *get_api_base) {
	typedef struct {
		const void *(*GetApi)(uint32_t version);
	} ApiBase;
	const ApiBase *base = ((const ApiBase *(*)(void))get_api_base)();
	api = base->GetApi(API_VERSION);
	if (!api) return strdup("the library is too old: expected ONNX Runtime 1.25 or later");
	// There is one environment in a process: this is the binding's, counted once more.
	enum { FATAL = 4 };
	TRY(CALL(CREATE_ENV, OrtStatus *, int, const char *, OrtEnv **)(FATAL, "sagbench", &env));
	return NULL;
}

char *api_preload(const char *path) {
	return dlopen(path, RTLD_NOW | RTLD_GLOBAL) ? NULL : strdup(dlerror());
}

static char *ep_devices(const OrtEpDevice *const **all, size_t *n) {
	TRY(CALL(GET_EP_DEVICES, OrtStatus *, const OrtEnv *, const OrtEpDevice *const **, size_t *)(env, all, n));
	return NULL;
}

char *api_devices(device **out, size_t *n) {
	const OrtEpDevice *const *all;
	char *message = ep_devices(&all, n);
	if (message) return message;
	*out = calloc(*n + 1, sizeof **out);
	if (!*out) return strdup("out of memory");
	for (size_t i = 0; i < *n; i++) {
		device *d = *out + i;
		const OrtHardwareDevice *h = CALL(EP_DEVICE, const OrtHardwareDevice *, const OrtEpDevice *)(all[i]);
		d->ep = CALL(EP_NAME, const char *, const OrtEpDevice *)(all[i]);
		d->kind = CALL(HARDWARE_TYPE, int, const OrtHardwareDevice *)(h);
		d->vendor = CALL(HARDWARE_VENDOR, const char *, const OrtHardwareDevice *)(h);
		d->vendor_id = CALL(HARDWARE_VENDOR_ID, uint32_t, const OrtHardwareDevice *)(h);
		d->device_id = CALL(HARDWARE_DEVICE_ID, uint32_t, const OrtHardwareDevice *)(h);
		const OrtKeyValuePairs *told[2] = {
			CALL(HARDWARE_METADATA, const OrtKeyValuePairs *, const OrtHardwareDevice *)(h),
			CALL(EP_METADATA, const OrtKeyValuePairs *, const OrtEpDevice *)(all[i]),
		};
		for (int k = 0; k < 2; k++)
			if (told[k])
				CALL(GET_KEY_VALUE_PAIRS, void, const OrtKeyValuePairs *, const char *const **, const char *const **, size_t *)(told[k], &d->keys[k], &d->values[k], &d->counts[k]);
	}
	return NULL;
}

char *api_append(void *session_options, size_t i, const char *const *keys, const char *const *values, size_t n) {
	const OrtEpDevice *const *all;
	size_t known;
	char *message = ep_devices(&all, &known);
	if (message) return message;
	if (i >= known) return strdup("the device is gone");
	TRY(CALL(APPEND_EXECUTION_PROVIDER_V2, OrtStatus *, OrtSessionOptions *, OrtEnv *, const OrtEpDevice *const *, size_t, const char *const *, const char *const *, size_t)(
		session_options, env, all + i, 1, keys, values, n));
	return NULL;
}

// ---- placement

typedef struct {
	char *data;
	size_t length, space;
} text;

static int put(text *t, const char *s) {
	size_t n = strlen(s) + 1;
	if (t->length + n > t->space) {
		size_t space = 2 * (t->length + n);
		char *data = realloc(t->data, space);
		if (!data) return 0;
		t->data = data, t->space = space;
	}
	memcpy(t->data + t->length, s, n);
	t->length += n;
	return 1;
}

static char *put_nodes(text *t, const OrtEpAssignedSubgraph *part) {
	const char *ep;
	const OrtEpAssignedNode *const *nodes;
	size_t n;
	TRY(CALL(SUBGRAPH_EP, OrtStatus *, const OrtEpAssignedSubgraph *, const char **)(part, &ep));
	TRY(CALL(SUBGRAPH_NODES, OrtStatus *, const OrtEpAssignedSubgraph *, const OrtEpAssignedNode *const **, size_t *)(part, &nodes, &n));
	static const int places[] = {NODE_DOMAIN, NODE_OPERATOR, NODE_NAME};
	for (size_t i = 0; i < n; i++) {
		int kept = put(t, ep);
		for (int k = 0; k < 3; k++) {
			const char *s;
			TRY(CALL(places[k], OrtStatus *, const OrtEpAssignedNode *, const char **)(nodes[i], &s));
			kept = kept && put(t, s);
		}
		if (!kept) return strdup("out of memory");
	}
	return NULL;
}

char *api_placement(void *session, char **out, size_t *length) {
	const OrtEpAssignedSubgraph *const *parts;
	size_t n;
	TRY(CALL(GET_ASSIGNMENT, OrtStatus *, const OrtSession *, const OrtEpAssignedSubgraph *const **, size_t *)(session, &parts, &n));
	text t = {0};
	for (size_t i = 0; i < n; i++) {
		char *message = put_nodes(&t, parts[i]);
		if (message) {
			free(t.data);
			return message;
		}
	}
	*out = t.data, *length = t.length;
	return NULL;
}

// ---- values on devices

static char *bind(OrtSession *session, OrtIoBinding *binding, const OrtMemoryInfo *host, size_t inputs, const char *const *input_names,
                  void *const *input_values, size_t outputs, const char *const *output_names, const unsigned char *to_host, const OrtMemoryInfo **places) {
	for (size_t i = 0; i < inputs; i++)
		TRY(CALL(BIND_INPUT, OrtStatus *, OrtIoBinding *, const char *, const OrtValue *)(binding, input_names[i], input_values[i]));
	TRY(CALL(OUTPUT_MEMORY_INFO, OrtStatus *, const OrtSession *, const OrtMemoryInfo **, size_t)(session, places, outputs));
	for (size_t i = 0; i < outputs; i++)
		TRY(CALL(BIND_OUTPUT_TO_DEVICE, OrtStatus *, OrtIoBinding *, const char *, const OrtMemoryInfo *)(binding, output_names[i], to_host[i] ? host : places[i]));
	return NULL;
}

static char *take(OrtIoBinding *binding, size_t outputs, void **output_values) {
	OrtAllocator *allocator;
	OrtValue **values = NULL;
	size_t n = 0;
	TRY(CALL(DEFAULT_ALLOCATOR, OrtStatus *, OrtAllocator **)(&allocator));
	TRY(CALL(BOUND_VALUES, OrtStatus *, const OrtIoBinding *, OrtAllocator *, OrtValue ***, size_t *)(binding, allocator, &values, &n));
	for (size_t i = 0; i < n; i++)
		if (n == outputs) output_values[i] = values[i];
		else api_release(values[i]);
	taken(CALL(ALLOCATOR_FREE, OrtStatus *, OrtAllocator *, void *)(allocator, values));
	return n == outputs ? NULL : strdup("the session gave another number of outputs");
}

char *api_run(void *session, void *run_options, size_t inputs, const char *const *input_names, void *const *input_values,
              size_t outputs, const char *const *output_names, const unsigned char *to_host, void **output_values) {
	OrtMemoryInfo *host = NULL;
	OrtIoBinding *binding = NULL;
	const OrtMemoryInfo **places = calloc(outputs + 1, sizeof *places);
	if (!places) return strdup("out of memory");
	enum { ARENA = 1, DEFAULT_MEMORY = 0 };
	char *message = taken(CALL(CPU_MEMORY_INFO, OrtStatus *, int, int, OrtMemoryInfo **)(ARENA, DEFAULT_MEMORY, &host));
	if (!message) message = taken(CALL(CREATE_BINDING, OrtStatus *, OrtSession *, OrtIoBinding **)(session, &binding));
	if (!message) message = bind(session, binding, host, inputs, input_names, input_values, outputs, output_names, to_host, places);
	if (!message) message = taken(CALL(RUN_WITH_BINDING, OrtStatus *, OrtSession *, const OrtRunOptions *, const OrtIoBinding *)(session, run_options, binding));
	if (!message) message = take(binding, outputs, output_values);
	if (binding) CALL(RELEASE_BINDING, void, OrtIoBinding *)(binding);
	if (host) CALL(RELEASE_MEMORY_INFO, void, OrtMemoryInfo *)(host);
	free(places);
	return message;
}

char *api_profile(void *run_options, const char *prefix) {
	TRY(CALL(ENABLE_PROFILING, OrtStatus *, OrtRunOptions *, const char *)(run_options, prefix));
	return NULL;
}

char *api_data(void *value, void **data) {
	enum { CPU = 0 };
	const OrtMemoryInfo *place;
	int kind = -1;
	*data = NULL;
	TRY(CALL(TENSOR_MEMORY_INFO, OrtStatus *, const OrtValue *, const OrtMemoryInfo **)(value, &place));
	CALL(MEMORY_DEVICE_TYPE, void, const OrtMemoryInfo *, int *)(place, &kind);
	if (kind == CPU) TRY(CALL(TENSOR_DATA, OrtStatus *, OrtValue *, void **)(value, data));
	return NULL;
}

void api_release(void *value) { CALL(RELEASE_VALUE, void, OrtValue *)(value); }
