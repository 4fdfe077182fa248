//go:build linux && amd64

#define NAME avx512
#define TARGET __attribute__((target("avx512f,avx512vl,avx2,fma")))
#define LANES 16
#define PLACES 14 // with two vectors each, 28 of 32 registers
#define MAX(a, b) _mm512_max_ps(a, b)
#include "conv_body.h"
