#ifndef SAGBENCH_OPERATORS_H
#define SAGBENCH_OPERATORS_H

// operators_name is that of the implementation for this processor, or NULL.
const char *operators_name(void);

// operators_add makes the operators known to the session that options, an
// OrtSessionOptions, will make; get_api_base is the library's OrtGetApiBase.
// It returns NULL or what went wrong, to be freed.
char *operators_add(void *get_api_base, void *options);

#endif
