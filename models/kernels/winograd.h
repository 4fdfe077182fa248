// Winograd's algorithm: F(4,r), four outputs of a correlation with r taps from
// r+3 products (Winograd, "Arithmetic Complexity of Computations", 1980; Lavin
// and Gray, arXiv 1509.09308), in the form of Toom and Cook: both factors are
// polynomials, evaluated at 0, ±p for K points p, and infinity; r+3 = 2K+2.
// The points are those whose rounding errors were the smallest of several.
#ifndef SAGBENCH_WINOGRAD_H
#define SAGBENCH_WINOGRAD_H

enum { OUTPUTS = 4, MAX_TAPS = 7, MAX_POINTS = MAX_TAPS + OUTPUTS - 1 };

static const float POINTS[5][4] = {{0}, {0}, {0.625f, 1.5f}, {1, 0.5f, 2}, {1, 0.5f, 2, 0.75f}};

// pairs is K for a kernel of r taps; 0 stands for no transform, for one tap.
static inline int pairs(int taps) { return (taps + 1) / 2 - (taps == 1); }

// points is the number of products for four outputs, or for one from one tap.
static inline int points(int taps) { return taps > 1 ? taps + OUTPUTS - 1 : 1; }

// outputs is how many outputs they give.
static inline int outputs(int taps) { return taps > 1 ? OUTPUTS : 1; }

// winograd_weights sets g [points,taps] to the transform of the weights.
void winograd_weights(int taps, double *g);

#endif
