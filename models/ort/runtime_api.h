// What the binding has no calls for: devices of plugins, and which provider runs the
// nodes of a session. Errors are texts to be freed; NULL is success.
#ifndef SAGBENCH_RUNTIME_API_H
#define SAGBENCH_RUNTIME_API_H

#include <stddef.h>

// api_base is OrtGetApiBase of the library at path, which is loaded already; NULL if
// it is not, or has none.
void *api_base(const char *path);

// api_open finds the runtime's functions and its environment.
char *api_open(void *get_api_base);

// api_preload loads a library that a plugin needs and would not find by itself.
char *api_preload(const char *path);

// A device is one that a provider could run graphs on. Its texts are the runtime's.
typedef struct {
	const char *ep;     // the provider
	const char *vendor; // of the hardware
	int kind;           // enum device_kind
	unsigned int vendor_id, device_id;
	// What is told of the hardware, and of it as the provider sees it.
	const char *const *keys[2], *const *values[2];
	size_t counts[2];
} device;

enum device_kind { DEVICE_CPU, DEVICE_GPU, DEVICE_NPU };

// api_devices lists those of all providers; n may be 0. The list is to be freed.
char *api_devices(device **out, size_t *n);

// api_append puts device i of api_devices into session options.
char *api_append(void *session_options, size_t i, const char *const *keys, const char *const *values, size_t n);

// api_placement lists the nodes of a session as four strings each, one behind the
// other: provider, domain, operator, name. The session must have been made with
// session.record_ep_graph_assignment_info. The list is to be freed.
char *api_placement(void *session, char **out, size_t *length);

// api_run runs a session with inputs and outputs by name; the session has those outputs,
// in their order. An output stays in the memory in which it was computed, or goes to the
// host's where to_host says so. The outputs are to be released.
char *api_run(void *session, void *run_options, size_t inputs, const char *const *input_names, void *const *input_values,
              size_t outputs, const char *const *output_names, const unsigned char *to_host, void **output_values);

// api_profile has a run written down in a file whose name begins with prefix.
char *api_profile(void *run_options, const char *prefix);

// api_data is the memory of a value that lies in the host's, NULL for others.
char *api_data(void *value, void **data);

void api_release(void *value);

#endif
