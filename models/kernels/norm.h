// Group norms of images in planes.
#ifndef SAGBENCH_NORM_H
#define SAGBENCH_NORM_H

#include "conv.h"

// group_norm sets y [n,c,plane] = (x − mean)/√(variance + eps)·scale + shift, with
// mean and variance over all of each group of c/groups channels; scale and shift are
// [c], or [n,c] where each is nonzero. It rounds as ONNX Runtime's
// InstanceNormalization does, followed by its BatchNormalization or Mul and Add.
void group_norm(const float *x, size_t n, size_t c, size_t plane, size_t groups, float eps,
                const float *scale, const float *shift, int each, float *y, team t);

#endif
