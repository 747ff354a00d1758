/* Products in fp32 with few output channels, for avx2: tiles of up to 4 rows x 3 outputs. */
#define PK_LANES 8
#define ROWS 4
#define OUTPUTS 3
#include "f32_narrow_vectors.h"

#include <immintrin.h>

static inline vec fused(vec a, vec b, vec c)
{
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}

static vec part(const float *p, size_t count)
{
    static const int32_t mask[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    const __m256i some = _mm256_loadu_si256((const __m256i *)(mask + 8 - count));
    return (vec)_mm256_maskload_ps(p, some);
}

static float total(vec v)
{
    const __m256 x = (__m256)v;
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

TILE(1)
TILE(2)
TILE(3)
TILE(4)

static const pk_f32_tile_function tiles[][2] = {
    {tile_1, tile_1}, {tile_2, tile_2}, {tile_3, tile_3}, {tile_4, tile_4},
};

const struct pk_f32_igemm_kernel pk_f32_narrow_avx2 = {
    "avx2 4x3", PK_ISA_AVX2, ROWS, OUTPUTS, 1, tiles, PK_LANES, NULL, 1,
};
