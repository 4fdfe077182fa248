//go:build linux && amd64

#define NAME avx2
#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define PLACES 6 // with two vectors each, 12 of 16 registers
#define MAX(a, b) _mm256_max_ps(a, b)
#include "conv_body.h"
