// Package kernels holds operators that ONNX Runtime has no fast kernels for:
// convolutions, by Winograd's algorithm where that saves products, pools, and group
// norms. The first two work on images in blocks of 16 channels. Session options go in; sessions made
// with them run nodes of the domain "sagbench":
//
//	ConvBatchNormRelu  weight, gamma, beta, mean, variance, x… → y;
//	                   all x together are the input's channels;
//	                   kernel_shape, pads [top and bottom, left and right], stride, epsilon
//	MaxPool            x → y; kernel_shape, pads, stride
//	AveragePool        the same; padding does not count
//	Conv               x, weight[, bias] → y: 3×3 with stride 1, of images [N,C,H,W];
//	                   kernel_shape, pads, stride
//	GroupNorm          x [N,C,…], scale, shift → y; these are [C], or [N,C] of each
//	                   image its own; groups, epsilon. Bit by bit what the runtime's
//	                   InstanceNormalization gives, with BatchNormalization or Mul and Add
//
// Other x and y are [N,C/16,H,W,16]; x of a ConvBatchNormRelu from three channels
// is [N,3,H,W]. All are float32. Every image's result is the same in any batch and on any number
// of threads. The C in here is compiled for AVX-512 and for AVX2, and what the
// processor has is found at run time.
package kernels
