/* int8 convolution with AVX-512 VNNI: tiles of up to 12 pixels by 32 channels, four values a step.
 * The input has its sign bit flipped (0 .. 255, as vpdpbusd wants it); the packed bias takes back
 * what that adds. */
#include "qd8_rows.h"
#include "unroll.h"

#include <immintrin.h>

#define LANES 16
#define ROWS 12
#define PANELS 2

static void prepare(void *to, const int8_t *from, size_t count)
{
    char *const values = to;
    const __m512i sign = _mm512_set1_epi8((char)0x80);
    size_t i = 0;
    for (; i + 64 <= count; i += 64)
        _mm512_storeu_si512(values + i, _mm512_xor_si512(_mm512_loadu_si512(from + i), sign));
    if (i < count) {
        const __mmask64 mask = (1ull << (count - i)) - 1;
        const __m512i rest = _mm512_maskz_loadu_epi8(mask, from + i);
        _mm512_mask_storeu_epi8(values + i, mask, _mm512_xor_si512(rest, sign));
    }
}

/* 128 times the sum of a row, in 16 parts. */
PK_INLINE __m512i sum_row(const int8_t *from, size_t depth, __mmask64 mask)
{
    const __m512i factor = _mm512_set1_epi8((char)128);
    __m512i sums = _mm512_setzero_si512();
    size_t i = 0;
    for (; i + 64 <= depth; i += 64)
        sums = _mm512_dpbusd_epi32(sums, factor, _mm512_loadu_si512(from + i));
    if (mask)
        sums = _mm512_dpbusd_epi32(sums, factor, _mm512_maskz_loadu_epi8(mask, from + i));
    return sums;
}

/* The parts of two rows, pairs added: a, b, a, b ... */
PK_INLINE __m512i joined(__m512i a, __m512i b)
{
    return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}

static void sum_rows(int32_t *to, const int8_t *from, size_t rows, size_t depth)
{
    const __mmask64 mask = depth % 64 ? (1ull << depth % 64) - 1 : 0;
    size_t r = 0;
    for (; r + 4 <= rows; r += 4, from += 4 * depth) { /* what is left of each is added together */
        const __m512i a = joined(sum_row(from, depth, mask), sum_row(from + depth, depth, mask));
        const __m512i b = joined(sum_row(from + 2 * depth, depth, mask),
                                 sum_row(from + 3 * depth, depth, mask));
        const __m512i all = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
        const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all),
                                              _mm512_extracti64x4_epi64(all, 1));
        _mm_storeu_si128((__m128i *)(to + r), _mm_add_epi32(_mm256_castsi256_si128(half),
                                                            _mm256_extracti128_si256(half, 1)));
    }
    for (; r < rows; r++, from += depth)
        to[r] = _mm512_reduce_add_epi32(sum_row(from, depth, mask));
}

static void quantize(void *to, struct pk_qd8_row *row, const float *from, size_t count)
{
    const __mmask16 mask = (__mmask16)((1u << count % 16) - 1);
    __m512 low = _mm512_set1_ps(from[0]), high = low;
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        const __m512 x = _mm512_loadu_ps(from + i);
        low = _mm512_min_ps(low, x);
        high = _mm512_max_ps(high, x);
    }
    if (mask) {
        const __m512 x = _mm512_maskz_loadu_ps(mask, from + i);
        low = _mm512_mask_min_ps(low, mask, low, x);
        high = _mm512_mask_max_ps(high, mask, high, x);
    }
    const float scale = pk_qd8_row_of(_mm512_reduce_min_ps(low), _mm512_reduce_max_ps(high), row);
    const __m512 factor = _mm512_set1_ps(scale);
    const __m512 most = _mm512_set1_ps((float)(127 - row->zero_point));
    /* With the sign bit flipped: 0 .. 255. */
    const __m512i zero_point = _mm512_set1_epi32(row->zero_point + 128);
    const __m512i zero = _mm512_setzero_si512();
    for (i = 0; i < count; i += 16) {
        const __mmask16 some = count - i >= 16 ? 0xffff : mask;
        const __m512 x = _mm512_mul_ps(_mm512_maskz_loadu_ps(some, from + i), factor);
        __m512i q = _mm512_cvtps_epi32(_mm512_min_ps(x, most));
        q = _mm512_max_epi32(_mm512_add_epi32(_mm512_max_epi32(q, _mm512_set1_epi32(-512)), zero_point), zero);
        _mm512_mask_cvtusepi32_storeu_epi8((char *)to + i, some, q);
    }
}

PK_INLINE __m512i quantized(__m512i sums, __m512 scale, __m512 max)
{
    return _mm512_cvtps_epi32(_mm512_min_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), scale), max));
}

PK_INLINE void put_floats(const struct pk_qs8_tile *t, size_t pixel, const int rows,
                          const int panels, __m512i sums[ROWS][PANELS])
{
    const __m512 min = _mm512_set1_ps(t->float_min), max = _mm512_set1_ps(t->float_max);
    float *out = (float *)t->output + pixel * t->output_stride;
    __m512i weights[PANELS];
    __m512 scale[PANELS], bias[PANELS];
    __mmask16 mask[PANELS];
    PK_UNROLL
    for (int p = 0; p < panels; p++) {
        const char *const panel = (const char *)t->panel + p * t->panel_size;
        weights[p] = _mm512_load_si512(panel);
        scale[p] = _mm512_load_ps(panel + LANES * 4);
        bias[p] = _mm512_load_ps(panel + LANES * 8);
        const size_t left = t->channels - p * LANES;
        mask[p] = left < LANES ? (__mmask16)((1u << left) - 1) : (__mmask16)0xffff;
    }
    PK_UNROLL
    for (int r = 0; r < rows; r++, out += t->output_stride) {
        const struct pk_qd8_row row = t->dynamic[pixel + r];
        const __m512i zero_point = _mm512_set1_epi32(row.zero_point + 128);
        PK_UNROLL
        for (int p = 0; p < panels; p++) {
            const __m512i sum =
                _mm512_sub_epi32(sums[r][p], _mm512_mullo_epi32(weights[p], zero_point));
            __m512 x = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(row.scale));
            x = _mm512_fmadd_ps(x, scale[p], bias[p]);
            x = _mm512_min_ps(_mm512_max_ps(x, min), max);
            _mm512_mask_storeu_ps(out + p * LANES, mask[p], x);
        }
    }
}

PK_INLINE void put_bytes(const struct pk_qs8_tile *t, size_t pixel, const int rows,
                         const int panels, __m512i sums[ROWS][PANELS])
{
    const __m512 max = _mm512_set1_ps((float)(t->max - t->zero_point));
    const __m512i zero_point = _mm512_set1_epi16((int16_t)t->zero_point);
    const __m512i min = _mm512_set1_epi8((char)t->min);
    __m512 scale[PANELS];
    PK_UNROLL
    for (int p = 0; p < panels; p++)
        scale[p] = _mm512_load_ps((const char *)t->panel + p * t->panel_size + LANES * 4);
    /* Packing works within 128 bits: of each, 4 channels of panel 0 and 4 of panel 1, for two rows;
     * with one panel, for four rows. */
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const int together = panels == 2 ? 2 : 4;
    const __mmask32 mask = t->channels < 32 ? (1u << t->channels) - 1 : ~0u;
    const size_t stride = t->output_stride;
    PK_UNROLL
    for (int r = 0; r < rows; r += together) {
        __m512i words[2];
        PK_UNROLL
        for (int i = 0; i < 2; i++) {
            const int first = panels == 2 ? r + i : r + 2 * i, second = panels == 2 ? first : first + 1;
            const int f = first < rows ? first : rows - 1, g = second < rows ? second : rows - 1;
            words[i] = _mm512_packs_epi32(
                quantized(sums[f][0], scale[0], max),
                quantized(sums[g][panels - 1], scale[panels - 1], max));
            words[i] = _mm512_adds_epi16(words[i], zero_point);
        }
        __m512i bytes = _mm512_max_epi8(_mm512_packs_epi16(words[0], words[1]), min);
        bytes = _mm512_permutexvar_epi32(order, bytes);
        int8_t *const out = (int8_t *)t->output + (pixel + r) * stride;
        if (panels == 2) {
            _mm256_mask_storeu_epi8(out, mask, _mm512_castsi512_si256(bytes));
            if (r + 1 < rows)
                _mm256_mask_storeu_epi8(out + stride, mask, _mm512_extracti64x4_epi64(bytes, 1));
        } else {
            const __mmask16 half = (__mmask16)mask;
            _mm_mask_storeu_epi8(out, half, _mm512_castsi512_si128(bytes));
            if (r + 1 < rows)
                _mm_mask_storeu_epi8(out + stride, half, _mm512_extracti32x4_epi32(bytes, 1));
            if (r + 2 < rows)
                _mm_mask_storeu_epi8(out + 2 * stride, half, _mm512_extracti32x4_epi32(bytes, 2));
            if (r + 3 < rows)
                _mm_mask_storeu_epi8(out + 3 * stride, half, _mm512_extracti32x4_epi32(bytes, 3));
        }
    }
}

/* One row by one panel has four sums, as each has to wait for the one before it. */
PK_INLINE void run(const struct pk_qs8_tile *t, size_t pixel, const int rows, const int panels,
                   const enum pk_qs8_form form)
{
    const char *const panel = t->panel;
    const size_t panel_size = t->panel_size, ahead = t->ahead;
    const int spread = rows == 1 && panels == 1;
    __m512i sums[ROWS][PANELS];
    if (spread)
        sums[1][0] = sums[2][0] = sums[3][0] = _mm512_setzero_si512();
    PK_UNROLL
    for (int p = 0; p < panels; p++) {
        const __m512i bias = form == PK_QS8_DYNAMIC ? _mm512_setzero_si512()
                                                    : _mm512_load_si512(panel + p * panel_size);
        PK_UNROLL
        for (int r = 0; r < rows; r++)
            sums[r][p] = form == PK_QS8_SIGNED
                             ? _mm512_sub_epi32(bias, _mm512_set1_epi32(t->corrections[pixel + r]))
                             : bias;
    }
    const char *weights = panel + LANES * (form == PK_QS8_DYNAMIC ? PK_QD8_HEADER : PK_QS8_HEADER);
    for (size_t s = 0; s < t->segment_count; s++) {
        const char *a[ROWS];
        PK_UNROLL
        for (int r = 0; r < rows; r++)
            a[r] = (const char *)t->rows[pixel + r] + t->segments[s];
        size_t left = t->segment_depth;
#define STEP(offset)                                                                               \
    do {                                                                                           \
        const int part = spread ? (offset) : 0;                                                    \
        __m512i w[PANELS];                                                                         \
        PK_UNROLL                                                                                  \
        for (int p = 0; p < panels; p++) {                                                         \
            w[p] = _mm512_load_si512(weights + p * panel_size + 64 * (offset));                    \
            if (rows > 1) /* the panels that come next */                                          \
                _mm_prefetch(weights + ahead + p * panel_size + 64 * (offset), _MM_HINT_T1);       \
        }                                                                                          \
        PK_UNROLL                                                                                  \
        for (int r = 0; r < rows; r++) {                                                           \
            int32_t four;                                                                          \
            __builtin_memcpy(&four, a[r] + 4 * (offset), 4);                                       \
            const __m512i x = _mm512_set1_epi32(four);                                             \
            PK_UNROLL                                                                              \
            for (int p = 0; p < panels; p++) {                                                     \
                __m512i *const sum = &sums[r + part][p];                                           \
                *sum = form == PK_QS8_SIGNED ? _mm512_dpbusd_epi32(*sum, w[p], x)                  \
                                             : _mm512_dpbusd_epi32(*sum, x, w[p]);                 \
            }                                                                                      \
        }                                                                                          \
    } while (0)
        for (; left >= 4; left -= 4) {
            STEP(0);
            STEP(1);
            STEP(2);
            STEP(3);
            weights += 256;
            PK_UNROLL
            for (int r = 0; r < rows; r++)
                a[r] += 16;
        }
        for (; left; left--) {
            STEP(0);
            weights += 64;
            PK_UNROLL
            for (int r = 0; r < rows; r++)
                a[r] += 4;
        }
#undef STEP
    }
    if (spread)
        sums[0][0] = _mm512_add_epi32(_mm512_add_epi32(sums[0][0], sums[1][0]),
                                      _mm512_add_epi32(sums[2][0], sums[3][0]));
    if (form == PK_QS8_DYNAMIC)
        put_floats(t, pixel, rows, panels, sums);
    else
        put_bytes(t, pixel, rows, panels, sums);
}

PK_INLINE void run_all(const struct pk_qs8_tile *t, size_t pixels, const int panels,
                       const enum pk_qs8_form form)
{
    size_t p = 0;
    for (; p + ROWS <= pixels; p += ROWS)
        run(t, p, ROWS, panels, form);
    if (pixels - p >= 8) {
        run(t, p, 8, panels, form);
        p += 8;
    }
    if (pixels - p >= 4) {
        run(t, p, 4, panels, form);
        p += 4;
    }
    if (pixels - p >= 2) {
        run(t, p, 2, panels, form);
        p += 2;
    }
    if (pixels - p)
        run(t, p, 1, panels, form);
}

static void tiles(const struct pk_qs8_tile *t, size_t pixels, enum pk_qs8_form form)
{
#define CASE(name)                                                                                 \
    case name:                                                                                     \
        if (pixels == 1) {                                                                         \
            const struct pk_qs8_tile rest = pk_qs8_next_panel(t, LANES, name);                     \
            run(t, 0, 1, 1, name);                                                                 \
            if (t->channels > LANES)                                                               \
                run(&rest, 0, 1, 1, name);                                                         \
        } else if (t->channels > LANES) {                                                          \
            run_all(t, pixels, 2, name);                                                           \
        } else {                                                                                   \
            run_all(t, pixels, 1, name);                                                           \
        }                                                                                          \
        break;
    switch (form) {
        CASE(PK_QS8_PREPARED)
        CASE(PK_QS8_SIGNED)
        CASE(PK_QS8_DYNAMIC)
    }
#undef CASE
}

const struct pk_qs8_kernels pk_qs8_avx512vnni = {
    .name = "avx512vnni 12x32", .lanes = LANES, .depth = 4, .flip = 128, .element = 1,
    .panels = PANELS, .rows = ROWS, .prepare = prepare, .tiles = tiles, .sum_rows = sum_rows,
    .quantize = quantize,
};
