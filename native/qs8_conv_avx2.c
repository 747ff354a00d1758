/* int8 convolution with AVX2: the input is widened to int16 beforehand, weights as they are loaded;
 * vpmaddwd multiplies and adds pairs without any saturation. For many tiles in a row weights are
 * widened beforehand too. */
#include <immintrin.h>

#define ROWS 4
#define DEPTH 2
#define FLIP 0

static inline __attribute__((always_inline)) __m256i multiply_add(__m256i sums, __m256i x, __m256i w)
{
    return _mm256_add_epi32(sums, _mm256_madd_epi16(x, w));
}

static inline __attribute__((always_inline)) __m256i load_weights(const char *from, int weight)
{
    return weight == 2 ? _mm256_load_si256((const __m256i *)from)
                       : _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)from));
}

#include "qs8_conv_256.h"

static void prepare(void *to, const int8_t *from, size_t count)
{
    int16_t *const values = to;
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(from + i)));
        _mm256_storeu_si256((__m256i *)(values + i), wide);
    }
    for (; i < count; i++)
        values[i] = from[i];
}

static void widen(void *to, const int8_t *weights, size_t count)
{
    for (size_t i = 0; i < count; i += 16)
        _mm256_store_si256((__m256i *)((int16_t *)to + i),
                           _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)(weights + i))));
}

static void put_wide(void *to, size_t at, __m256i values, size_t count)
{
    int16_t *const out = (int16_t *)to + at;
    if (count == 16) {
        _mm256_storeu_si256((__m256i *)out, values);
        return;
    }
    int16_t rest[16];
    _mm256_storeu_si256((__m256i *)rest, values);
    for (size_t i = 0; i < count; i++)
        out[i] = rest[i];
}

static void quantize(void *to, struct pk_qd8_row *row, const float *from, size_t count)
{
    quantize_row(to, row, from, count, put_wide);
}

static void tiles(const struct pk_qs8_tile *t, size_t pixels, enum pk_qs8_form form)
{
    if (form == PK_QS8_DYNAMIC)
        run_form(t, pixels, 1, PK_QS8_DYNAMIC);
    else
        run_form(t, pixels, 1, PK_QS8_PREPARED);
}

static void wide_tiles(const struct pk_qs8_tile *t, size_t pixels, enum pk_qs8_form form)
{
    if (form == PK_QS8_DYNAMIC)
        run_form(t, pixels, 2, PK_QS8_DYNAMIC);
    else
        run_form(t, pixels, 2, PK_QS8_PREPARED);
}

const struct pk_qs8_kernels pk_qs8_avx2 = {
    .name = "avx2 4x16", .lanes = LANES, .depth = DEPTH, .flip = FLIP, .element = 2,
    .panels = PANELS, .rows = ROWS, .wide = 2, .prepare = prepare, .tiles = tiles, .widen = widen,
    .wide_tiles = wide_tiles, .quantize = quantize,
};
