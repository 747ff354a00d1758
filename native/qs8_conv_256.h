/* The tile of int8 convolution in registers of 256 bits, for the files that include it: they define
 * `multiply_add(sums, x, w)`, `load_weights(from, wide)` of 8 channels by one group, DEPTH (values of
 * a group) and ROWS. */
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

PK_INLINE void run(const struct pk_qs8_tile *t, const int rows, const int panels,
                   const int weight)
{
    const char *const panel = t->panel;
    const size_t panel_size = t->panel_size;
    __m256i sums[ROWS][PANELS];
    PK_UNROLL
    for (int p = 0; p < panels; p++) {
        const __m256i bias = _mm256_load_si256((const __m256i *)(panel + p * panel_size));
        PK_UNROLL
        for (int r = 0; r < rows; r++)
            sums[r][p] = bias;
    }
    const char *weights = panel + LANES * 8;
    for (size_t s = 0; s < t->segment_count; s++) {
        const char *a[ROWS];
        PK_UNROLL
        for (int r = 0; r < rows; r++)
            a[r] = (const char *)t->rows[r] + t->segments[s];
        size_t left = t->segment_depth;
#define STEP(offset)                                                                               \
    do {                                                                                           \
        __m256i w[PANELS];                                                                         \
        PK_UNROLL                                                                                  \
        for (int p = 0; p < panels; p++)                                                           \
            w[p] = load_weights(weights + p * panel_size + LANES * DEPTH * weight * (offset),      \
                                weight);                                                           \
        PK_UNROLL                                                                                  \
        for (int r = 0; r < rows; r++) {                                                           \
            int32_t four;                                                                          \
            __builtin_memcpy(&four, a[r] + 4 * (offset), 4);                                       \
            const __m256i x = _mm256_set1_epi32(four);                                             \
            PK_UNROLL                                                                              \
            for (int p = 0; p < panels; p++) {                                                     \
                sums[r][p] = multiply_add(sums[r][p], x, w[p]);                                    \
                PK_KEEP(sums[r][p]);                                                               \
            }                                                                                      \
        }                                                                                          \
    } while (0)
        for (; left >= 4; left -= 4) {
            STEP(0);
            STEP(1);
            STEP(2);
            STEP(3);
            weights += LANES * DEPTH * weight * 4;
            PK_UNROLL
            for (int r = 0; r < rows; r++)
                a[r] += 16;
        }
        for (; left; left--) {
            STEP(0);
            weights += LANES * DEPTH * weight;
            PK_UNROLL
            for (int r = 0; r < rows; r++)
                a[r] += 4;
        }
#undef STEP
    }

    const __m256 max = _mm256_set1_ps((float)(t->max - t->zero_point));
    const __m256i zero_point = _mm256_set1_epi16((int16_t)t->zero_point);
    const __m256i min = _mm256_set1_epi8((char)t->min);
    __m256 scale[PANELS];
    PK_UNROLL
    for (int p = 0; p < panels; p++)
        scale[p] = _mm256_load_ps((const float *)(panel + p * panel_size + LANES * 4));
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
        int8_t *const out = t->output + r * t->output_stride;
        pk_store_tail(out, _mm256_castsi256_si128(bytes), t->channels);
        if (r + 1 < rows)
            pk_store_tail(out + t->output_stride, _mm256_extracti128_si256(bytes, 1), t->channels);
    }
}

/* `weight`: the bytes of a weight in the panels. */
PK_INLINE void run_rows(const struct pk_qs8_tile *t, size_t rows, const int weight)
{
#define CASE(n)                                                                                    \
    case n:                                                                                        \
        run(t, n, 2, weight);                                                                      \
        return;                                                                                    \
    case n + ROWS:                                                                                 \
        run(t, n, 1, weight);                                                                      \
        return;
    switch (rows + (t->channels <= LANES ? ROWS : 0)) {
        CASE(1) CASE(2) CASE(3) CASE(4)
#if ROWS >= 5
        CASE(5)
#endif
#if ROWS >= 6
        CASE(6)
#endif
    }
#undef CASE
}
