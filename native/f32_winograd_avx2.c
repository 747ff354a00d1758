/* The transforms of F(2x2, 3x3) with AVX2 and FMA. */
#include <immintrin.h>
#include <stddef.h>

#define WIDTH 8
#define V __m256
#define LOAD(address) _mm256_loadu_ps(address)
#define STORE(address, value) _mm256_storeu_ps(address, value)
#define SET(value) _mm256_set1_ps(value)
#define ADD(a, b) _mm256_add_ps(a, b)
#define SUB(a, b) _mm256_sub_ps(a, b)
#define MUL(a, b) _mm256_mul_ps(a, b)
#define FMA(a, b, sum) _mm256_fmadd_ps(a, b, sum)
#define FNMA(a, b, sum) _mm256_fnmadd_ps(a, b, sum)
#define MIN(a, b) _mm256_min_ps(a, b)
#define MAX(a, b) _mm256_max_ps(a, b)
#define LOAD_SOME(address, count) _mm256_maskload_ps(address, mask_of(count))
#define STORE_SOME(address, value, count) _mm256_maskstore_ps(address, mask_of(count), value)
#define ALL_ZERO(value)                                                                            \
    (_mm256_movemask_ps(_mm256_cmp_ps(value, _mm256_setzero_ps(), _CMP_EQ_OQ)) == 0xff)

static inline __attribute__((always_inline)) __m256i mask_of(size_t count)
{
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), index);
}

#include "f32_winograd_tile.h"

const struct pk_f32_winograd_kernel pk_f32_winograd_avx2 = KERNEL;
