/* Depthwise convolution in fp32 with AVX-512. */
#include <immintrin.h>
#include <stddef.h>

#define WIDTH 16
#define V __m512
#define LOAD(address) _mm512_loadu_ps(address)
#define STORE(address, value) _mm512_storeu_ps(address, value)
#define SET(value) _mm512_set1_ps(value)
#define FMA(a, b, sum) _mm512_fmadd_ps(a, b, sum)
#define MIN(a, b) _mm512_min_ps(a, b)
#define MAX(a, b) _mm512_max_ps(a, b)
#define MASK(count) ((__mmask16)((1u << (count)) - 1))
#define LOAD_SOME(address, count) _mm512_maskz_loadu_ps(MASK(count), address)
#define STORE_SOME(address, value, count) _mm512_mask_storeu_ps(address, MASK(count), value)

#include "f32_dwconv_tile.h"

const struct pk_f32_dwconv_kernel pk_f32_dwconv_avx512 = {
    "avx512 7x16", WIDTH, row_kernels, any_run,
};
