// Package eval turns features of images into the numbers of a paper's table.
//
// In go two sets of features, a reference and a generated one, each with as
// much as is known of it: rows of pool features, their mean and covariance
// (of images that were seen, or read from a reference .npz in the layout of
// the ADM evaluator), statistics of spatial features, class logits. Out come
// scores: FID, sFID, Inception Score, precision and recall, density and
// coverage, KID, FID at infinitely many samples.
//
// Each metric is a file that opens with its formula and source, and a row in
// Metrics. Where implementations in use differ in arithmetic, the ADM
// evaluator (openai/guided-diffusion, evaluations/evaluator.py) is the default
// and the others are options. The network that computes features is not here.
//
// Large matrix products go through the Products interface; everything that
// grows with the number of images is a stream or a sequence of blocks.
package eval
