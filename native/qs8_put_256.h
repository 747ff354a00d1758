/* The outputs of int8 products from sums in registers of 256 bits, for the files that include this:
 * they define FLIP (what is added to each value) and ROWS (of a tile). */
#include "qs8_conv.h"
#include "store_tail.h"
#include "unroll.h"

#include <immintrin.h>

#define LANES 8
#define PANELS 2

PK_INLINE __m256i quantized(__m256i sums, __m256 scale, __m256 max)
{
    return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sums), scale), max));
}

/* `whole`: all channels exist. */
PK_INLINE void put_floats_of(const struct pk_qs8_tile *t, size_t pixel, const int rows,
                             const int panels, __m256i sums[ROWS][PANELS], const int whole)
{
    /* What a loop reads of a struct it reads each time anew, as floats are stored meanwhile. */
    const size_t stride = t->output_stride, channels = t->channels, size = t->panel_size;
    const char *const panel = t->panel;
    const struct pk_qd8_row *const dynamic = t->dynamic + pixel;
    const __m256 min = _mm256_set1_ps(t->float_min), max = _mm256_set1_ps(t->float_max);
    float *const out = (float *)t->output + pixel * stride;
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    PK_UNROLL
    for (int p = 0; p < panels; p++) {
        const char *const header = panel + (size_t)p * size;
        const __m256i weights = _mm256_load_si256((const __m256i *)header);
        const __m256 scale = _mm256_load_ps((const float *)(header + LANES * 4));
        const __m256 bias = _mm256_load_ps((const float *)(header + LANES * 8));
        const __m256i left = _mm256_set1_epi32((int)channels - p * LANES);
        const __m256i mask = _mm256_cmpgt_epi32(left, lanes);
        PK_UNROLL
        for (int r = 0; r < rows; r++) {
            const __m256i zero_point = _mm256_set1_epi32(dynamic[r].zero_point + FLIP);
            const __m256i sum =
                _mm256_sub_epi32(sums[r][p], _mm256_mullo_epi32(weights, zero_point));
            const __m256 x =
                _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(dynamic[r].scale));
            const __m256 y = _mm256_min_ps(
                _mm256_max_ps(_mm256_fmadd_ps(x, scale, bias), min), max);
            float *const to = out + (size_t)r * stride + p * LANES;
            if (whole)
                _mm256_storeu_ps(to, y);
            else
                _mm256_maskstore_ps(to, mask, y);
        }
    }
}

PK_INLINE void put_floats(const struct pk_qs8_tile *t, size_t pixel, const int rows,
                          const int panels, __m256i sums[ROWS][PANELS])
{
    if (t->channels >= (size_t)(panels * LANES))
        put_floats_of(t, pixel, rows, panels, sums, 1);
    else
        put_floats_of(t, pixel, rows, panels, sums, 0);
}

PK_INLINE void put_bytes(const struct pk_qs8_tile *t, size_t pixel, const int rows,
                         const int panels, __m256i sums[ROWS][PANELS])
{
    const __m256 max = _mm256_set1_ps((float)(t->max - t->zero_point));
    const __m256i zero_point = _mm256_set1_epi16((int16_t)t->zero_point);
    const __m256i min = _mm256_set1_epi8((char)t->min);
    __m256 scale[PANELS];
    PK_UNROLL
    for (int p = 0; p < panels; p++)
        scale[p] = _mm256_load_ps(
            (const float *)((const char *)t->panel + p * t->panel_size + LANES * 4));
    /* Packing works within 128 bits: of each, 4 channels of panel 0 and 4 of panel 1, of two rows. */
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    PK_UNROLL
    for (int r = 0; r < rows; r += 2) {
        __m256i words[2];
        PK_UNROLL
        for (int i = 0; i < 2; i++) {
            const int row = r + i < rows ? r + i : r;
            words[i] = _mm256_packs_epi32(
                quantized(sums[row][0], scale[0], max),
                quantized(sums[row][panels - 1], scale[panels - 1], max));
            words[i] = _mm256_adds_epi16(words[i], zero_point);
        }
        __m256i bytes = _mm256_max_epi8(_mm256_packs_epi16(words[0], words[1]), min);
        bytes = _mm256_permutevar8x32_epi32(bytes, order);
        int8_t *const out = (int8_t *)t->output + (pixel + r) * t->output_stride;
        pk_store_tail(out, _mm256_castsi256_si128(bytes), t->channels);
        if (r + 1 < rows)
            pk_store_tail(out + t->output_stride, _mm256_extracti128_si256(bytes, 1), t->channels);
    }
}
