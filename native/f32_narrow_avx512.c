/* Products in fp32 with few output channels, for avx512: tiles of up to 6 rows x 4 outputs. */
#define PK_LANES 16
#define ROWS 6
#define OUTPUTS 4
#include "f32_narrow_vectors.h"

#include <immintrin.h>

static inline vec fused(vec a, vec b, vec c)
{
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}

static vec part(const float *p, size_t count)
{
    return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), p);
}

static float total(vec v)
{
    return _mm512_reduce_add_ps((__m512)v);
}

TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)

static const pk_f32_tile_function tiles[][2] = {
    {tile_1, tile_1}, {tile_2, tile_2}, {tile_3, tile_3},
    {tile_4, tile_4}, {tile_5, tile_5}, {tile_6, tile_6},
};

const struct pk_f32_igemm_kernel pk_f32_narrow_avx512 = {
    "avx512 6x4", PK_ISA_AVX512, ROWS, OUTPUTS, 1, tiles, PK_LANES, NULL, 1,
};
