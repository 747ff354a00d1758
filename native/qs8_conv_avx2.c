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
#include "qs8_multiply_avx2.h"
#include "qs8_parts.h"
#include "qs8_strassen.h"
#include "qs8_winograd.h"

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

static const __m256i *own_of_panel(const void *panel, size_t size)
{
    return (const __m256i *)((const char *)panel + size - LANES * PK_QS8_OWN);
}

/* Widened weights of two panels by own products. */
PK_INLINE void run_own(const struct pk_qs8_tile *t, size_t pixel, const int rows,
                       const enum pk_qs8_form form)
{
    const char *const panel = t->panel;
    const size_t size = t->panel_size;
    __m256i sums[ROWS][PANELS];
    PK_UNROLL
    for (int p = 0; p < PANELS; p++) {
        const char *const one = panel + (size_t)p * size;
        const __m256i own = _mm256_load_si256(own_of_panel(one, size));
        const __m256i start = form == PK_QS8_DYNAMIC ? _mm256_setzero_si256()
                                                     : _mm256_load_si256((const __m256i *)one);
        PK_UNROLL
        for (int r = 0; r < rows; r++)
            sums[r][p] = _mm256_sub_epi32(_mm256_sub_epi32(start, own),
                                          _mm256_set1_epi32(t->corrections[pixel + r]));
    }
    const char *weights = panel + LANES * (form == PK_QS8_DYNAMIC ? PK_QD8_HEADER : PK_QS8_HEADER);
    for (size_t s = 0; s < t->segment_count; s++) {
        const char *a[ROWS];
        PK_UNROLL
        for (int r = 0; r < rows; r++)
            a[r] = (const char *)t->rows[pixel + r] + t->segments[s];
        pk_multiply_run(rows, sums, a, weights, t->segment_depth, LANES * DEPTH * 2, size);
        weights += LANES * DEPTH * 2 * t->segment_depth;
    }
    if (form == PK_QS8_DYNAMIC)
        put_floats(t, pixel, rows, PANELS, sums);
    else
        put_bytes(t, pixel, rows, PANELS, sums);
}

PK_INLINE void own_form(const struct pk_qs8_tile *t, size_t pixels, const enum pk_qs8_form form)
{
    size_t p = 0;
    for (; p + ROWS <= pixels; p += ROWS)
        run_own(t, p, ROWS, form);
    if (pixels - p >= 2) {
        run_own(t, p, 2, form);
        p += 2;
    }
    if (pixels - p)
        run_own(t, p, 1, form);
}

static void own_tiles(const struct pk_qs8_tile *t, size_t pixels, enum pk_qs8_form form)
{
    if (t->channels <= LANES)
        wide_tiles(t, pixels, form);
    else if (form == PK_QS8_DYNAMIC)
        own_form(t, pixels, PK_QS8_DYNAMIC);
    else
        own_form(t, pixels, PK_QS8_PREPARED);
}

static int32_t own_of_row(const void *row, size_t depth)
{
    return pk_sum_of_lanes(pk_own_of_row(row, depth));
}

/* The own products of the tiles: of each segment, as they take one at a time. */
static __m256i own_of_tiles(const struct pk_qs8_layout *l, const char *panel)
{
    const __m128i *w = (const __m128i *)(panel + l->header);
    __m256i sums = _mm256_setzero_si256();
    for (size_t s = 0; s < l->count; s++, w += l->depth)
        for (size_t i = 0; i + 2 <= l->depth; i += 2)
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_cvtepi8_epi16(w[i]),
                                                            _mm256_cvtepi8_epi16(w[i + 1])));
    return sums;
}

static void pack_own(const struct pk_qs8_conv *conv, const struct pk_qs8_layout *l, void *packed)
{
    for (size_t p = 0; p < l->panels; p++) {
        const char *const panel = (const char *)packed + p * l->panel;
        _mm256_store_si256((__m256i *)own_of_panel(panel, l->panel), own_of_tiles(l, panel));
    }
    if (pk_qs8_strassen_packs(conv))
        pk_qs8_strassen_pack_own(conv, l, packed);
    else if (pk_qs8_winograd_can(conv))
        pk_qs8_winograd_pack_own(conv, l, packed);
}

const struct pk_qs8_kernels pk_qs8_avx2 = {
    .name = "avx2 4x16", .lanes = LANES, .depth = DEPTH, .flip = FLIP, .element = 2,
    .panels = PANELS, .rows = ROWS, .wide = 2, .prepare = prepare, .tiles = tiles, .widen = widen,
    .wide_tiles = wide_tiles, .own_tiles = own_tiles, .own_of_row = own_of_row,
    .pack_own = pack_own, .quantize = quantize,
};
