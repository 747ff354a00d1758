/* Depthwise convolution in fp32 with AVX2 and FMA. */
#include <immintrin.h>
#include <stddef.h>

#define WIDTH 8
#define V __m256
#define LOAD(address) _mm256_loadu_ps(address)
#define STORE(address, value) _mm256_storeu_ps(address, value)
#define SET(value) _mm256_set1_ps(value)
#define FMA(a, b, sum) _mm256_fmadd_ps(a, b, sum)
#define MIN(a, b) _mm256_min_ps(a, b)
#define MAX(a, b) _mm256_max_ps(a, b)
#define LOAD_SOME(address, count) _mm256_maskload_ps(address, mask_of(count))
#define STORE_SOME(address, value, count) store_some(address, value, count)

static inline __attribute__((always_inline)) __m256i mask_of(size_t count)
{
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), index);
}

/* Masked stores take dozens of operations on some processors. */
static inline __attribute__((always_inline)) void store_some(float *to, __m256 value, size_t count)
{
    __m128 rest = _mm256_castps256_ps128(value);
    if (count & 4) {
        _mm_storeu_ps(to, rest);
        rest = _mm256_extractf128_ps(value, 1);
        to += 4;
    }
    if (count & 2) {
        _mm_storel_pi((__m64 *)to, rest);
        rest = _mm_movehl_ps(rest, rest);
        to += 2;
    }
    if (count & 1)
        _mm_store_ss(to, rest);
}

#include "f32_dwconv_tile.h"

const struct pk_f32_dwconv_kernel pk_f32_dwconv_avx2 = {"avx2 7x8", WIDTH, row_kernels, any_run};
