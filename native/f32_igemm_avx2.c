/* fp32 products with AVX2 and FMA: tiles of up to 6 rows x 16 columns, 12 sums in registers. */
#include "f32_igemm.h"
#include "f32_transpose_avx2.h"
#include "unroll.h"

#include <immintrin.h>

#define WIDTH 8

/* The first `count` elements, all ones. */
PK_INLINE __m256i mask_of(size_t count)
{
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)pk_min(count, WIDTH)), index);
}

PK_INLINE void panel_of(const struct pk_f32_tile *tile, const size_t rows, const size_t vectors,
                        const size_t panel, const size_t columns)
{
    __m256 sums[6][2];
    const size_t tail = pk_min(columns - (vectors - 1) * WIDTH, WIDTH);
    const __m256i mask = mask_of(tail);
    float *const first = tile->output + panel * vectors * WIDTH;
    const size_t skipped = panel * tile->panel_stride;
    if (tile->bias) {
        PK_UNROLL for (size_t v = 0; v < vectors; v++) {
            const __m256 bias = _mm256_loadu_ps(tile->bias + skipped + v * WIDTH);
            PK_UNROLL for (size_t m = 0; m < rows; m++) sums[m][v] = bias;
        }
    } else {
        PK_UNROLL for (size_t m = 0; m < rows; m++) {
            const float *output = first + m * tile->output_stride;
            PK_UNROLL for (size_t v = 0; v + 1 < vectors; v++)
                sums[m][v] = _mm256_loadu_ps(output + v * WIDTH);
            sums[m][vectors - 1] = _mm256_maskload_ps(output + (vectors - 1) * WIDTH, mask);
        }
    }
    const float *const *inputs = tile->inputs;
    const size_t channels = tile->channels, ahead = tile->ahead;
    for (size_t t = 0; t < tile->taps; t++, inputs += PK_F32_IGEMM_ROWS) {
        const float *weights = tile->weights[t] + skipped;
        const float *input[6];
        PK_UNROLL for (size_t m = 0; m < rows; m++) input[m] = inputs[m] + tile->offset;
        for (size_t k = 0; k < channels; k++) {
            __m256 columns[2];
            PK_UNROLL for (size_t v = 0; v < vectors; v++)
                columns[v] = _mm256_loadu_ps(weights + v * WIDTH);
            _mm_prefetch((const char *)(weights + ahead), _MM_HINT_T1);
            weights += vectors * WIDTH;
            PK_UNROLL for (size_t m = 0; m < rows; m++) {
                const __m256 row = _mm256_broadcast_ss(input[m] + k);
                PK_UNROLL for (size_t v = 0; v < vectors; v++)
                    sums[m][v] = _mm256_fmadd_ps(row, columns[v], sums[m][v]);
            }
        }
    }
    const __m256 min = _mm256_set1_ps(tile->min), max = _mm256_set1_ps(tile->max);
    PK_UNROLL for (size_t m = 0; m < rows; m++) {
        float *output = first + m * tile->output_stride;
        PK_UNROLL for (size_t v = 0; v < vectors; v++)
            sums[m][v] = _mm256_min_ps(max, _mm256_max_ps(min, sums[m][v]));
        PK_UNROLL for (size_t v = 0; v + 1 < vectors; v++)
            _mm256_storeu_ps(output + v * WIDTH, sums[m][v]);
        if (tail == WIDTH)
            _mm256_storeu_ps(output + (vectors - 1) * WIDTH, sums[m][vectors - 1]);
        else
            _mm256_maskstore_ps(output + (vectors - 1) * WIDTH, mask, sums[m][vectors - 1]);
    }
}

#include "f32_igemm_tile.h"

TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)

static const pk_f32_tile_function tiles[][2] = {
    {tile_1x1, tile_1x2}, {tile_2x1, tile_2x2}, {tile_3x1, tile_3x2},
    {tile_4x1, tile_4x2}, {tile_5x1, tile_5x2}, {tile_6x1, tile_6x2},
};

static void transpose(float *to, size_t stride, const float *from, size_t step, int past)
{
    (void)past;
    pk_transpose(to, stride, from, step);
}

const struct pk_f32_igemm_kernel pk_f32_igemm_avx2 = {
    "avx2 6x16", PK_ISA_AVX2, 6, WIDTH, 2, tiles, 8, transpose, 0,
};
