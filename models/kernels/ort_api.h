// What operators need of ONNX Runtime's C interface. The functions of OrtApi
// and the members of OrtCustomOp keep their places in every release.
#ifndef SAGBENCH_ORT_API_H
#define SAGBENCH_ORT_API_H

#include <stddef.h>
#include <stdint.h>

typedef struct OrtStatus OrtStatus;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtValue OrtValue;
typedef struct OrtShape OrtShape; // OrtTensorTypeAndShapeInfo
typedef struct OrtCustomOp OrtCustomOp;

enum {
	API_VERSION = 18, // the first one with all of OrtCustomOp's members below
	ORT_FAIL = 1,
	ORT_FLOAT = 1, // ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
	ORT_REQUIRED = 0, ORT_OPTIONAL = 1, ORT_VARIADIC = 2, // OrtCustomOpInputOutputCharacteristic
};

typedef struct OrtApi {
	OrtStatus *(*CreateStatus)(int code, const char *message);
	void *after0;
	const char *(*GetErrorMessage)(const OrtStatus *);
	void *after2[23];
	OrtStatus *(*CreateCustomOpDomain)(const char *domain, OrtCustomOpDomain **out);
	OrtStatus *(*CustomOpDomain_Add)(OrtCustomOpDomain *, const OrtCustomOp *);
	OrtStatus *(*AddCustomOpDomain)(OrtSessionOptions *, OrtCustomOpDomain *);
	void *after28[22];
	OrtStatus *(*GetTensorMutableData)(OrtValue *, void **out);
	void *after51[9];
	OrtStatus *(*GetDimensionsCount)(const OrtShape *, size_t *out);
	OrtStatus *(*GetDimensions)(const OrtShape *, int64_t *values, size_t length);
	void *after62[2];
	OrtStatus *(*GetTensorTypeAndShape)(const OrtValue *, OrtShape **out);
	void *after65[19];
	OrtStatus *(*KernelInfoGetAttribute_float)(const OrtKernelInfo *, const char *name, float *out);
	OrtStatus *(*KernelInfoGetAttribute_int64)(const OrtKernelInfo *, const char *name, int64_t *out);
	void *after86;
	OrtStatus *(*KernelContext_GetInputCount)(const OrtKernelContext *, size_t *out);
	void *after88;
	OrtStatus *(*KernelContext_GetInput)(const OrtKernelContext *, size_t index, const OrtValue **out);
	OrtStatus *(*KernelContext_GetOutput)(OrtKernelContext *, size_t index, const int64_t *shape, size_t rank, OrtValue **out);
	void *after91;
	void (*ReleaseStatus)(OrtStatus *);
	void *after93[5];
	void (*ReleaseTensorTypeAndShapeInfo)(OrtShape *);
	void *after99[63];
	OrtStatus *(*KernelInfoGetAttributeArray_int64)(const OrtKernelInfo *, const char *name, int64_t *out, size_t *size);
	void *after163[66];
	OrtStatus *(*KernelInfo_GetInputCount)(const OrtKernelInfo *, size_t *out);
	void *after230[18];
	OrtStatus *(*KernelInfoGetConstantInput_tensor)(const OrtKernelInfo *, size_t index, int *constant, const OrtValue **out);
	void *after249[24];
	OrtStatus *(*KernelContext_ParallelFor)(const OrtKernelContext *, void (*f)(void *, size_t), size_t n, size_t batches, void *arg);
} OrtApi;

#define PLACE(name, n) _Static_assert(offsetof(OrtApi, name) == (n) * sizeof(void *), "place of " #name)
PLACE(GetErrorMessage, 2);
PLACE(CreateCustomOpDomain, 26);
PLACE(GetTensorMutableData, 51);
PLACE(GetDimensionsCount, 61);
PLACE(GetTensorTypeAndShape, 65);
PLACE(KernelInfoGetAttribute_float, 85);
PLACE(KernelContext_GetInputCount, 88);
PLACE(KernelContext_GetInput, 90);
PLACE(ReleaseStatus, 93);
PLACE(ReleaseTensorTypeAndShapeInfo, 99);
PLACE(KernelInfoGetAttributeArray_int64, 163);
PLACE(KernelInfo_GetInputCount, 230);
PLACE(KernelInfoGetConstantInput_tensor, 249);
PLACE(KernelContext_ParallelFor, 274);

typedef struct {
	const OrtApi *(*GetApi)(uint32_t version);
	const char *(*GetVersionString)(void);
} OrtApiBase;

struct OrtCustomOp {
	uint32_t version;
	void *CreateKernel;
	const char *(*GetName)(const OrtCustomOp *);
	const char *(*GetExecutionProviderType)(const OrtCustomOp *);
	int (*GetInputType)(const OrtCustomOp *, size_t index);
	size_t (*GetInputTypeCount)(const OrtCustomOp *);
	int (*GetOutputType)(const OrtCustomOp *, size_t index);
	size_t (*GetOutputTypeCount)(const OrtCustomOp *);
	void *KernelCompute;
	void (*KernelDestroy)(void *kernel);
	int (*GetInputCharacteristic)(const OrtCustomOp *, size_t index);
	int (*GetOutputCharacteristic)(const OrtCustomOp *, size_t index);
	int (*GetInputMemoryType)(const OrtCustomOp *, size_t index);
	int (*GetVariadicInputMinArity)(const OrtCustomOp *);
	int (*GetVariadicInputHomogeneity)(const OrtCustomOp *);
	int (*GetVariadicOutputMinArity)(const OrtCustomOp *);
	int (*GetVariadicOutputHomogeneity)(const OrtCustomOp *);
	OrtStatus *(*CreateKernelV2)(const OrtCustomOp *, const OrtApi *, const OrtKernelInfo *, void **kernel);
	OrtStatus *(*KernelComputeV2)(void *kernel, OrtKernelContext *);
	void *InferOutputShapeFn;
	int (*GetStartVersion)(const OrtCustomOp *);
	int (*GetEndVersion)(const OrtCustomOp *);
	void *GetMayInplace, *ReleaseMayInplace, *GetAliasMap, *ReleaseAliasMap;
};

#endif
