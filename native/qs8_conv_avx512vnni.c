/* int8 convolution with AVX-512 VNNI: tiles of up to 12 pixels by 32 channels, four values a step.
 * The input has its sign bit flipped (0 .. 255, as vpdpbusd wants it); the packed bias takes back
 * what that adds. */
#include "qs8_conv.h"
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

PK_INLINE __m512i quantized(__m512i sums, __m512 scale, __m512 max)
{
    return _mm512_cvtps_epi32(_mm512_min_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), scale), max));
}

PK_INLINE void run(const struct pk_qs8_tile *t, const int rows, const int panels, const int raw)
{
    const char *const panel = t->panel;
    const size_t panel_size = t->panel_size;
    const __m512i sign = _mm512_set1_epi8((char)0x80);
    __m512i sums[ROWS][PANELS];
    PK_UNROLL
    for (int p = 0; p < panels; p++) {
        const __m512i bias = _mm512_load_si512(panel + p * panel_size);
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
        __m512i w[PANELS];                                                                         \
        PK_UNROLL                                                                                  \
        for (int p = 0; p < panels; p++)                                                           \
            w[p] = _mm512_load_si512(weights + p * panel_size + 64 * (offset));                    \
        PK_UNROLL                                                                                  \
        for (int r = 0; r < rows; r++) {                                                           \
            int32_t four;                                                                          \
            __builtin_memcpy(&four, a[r] + 4 * (offset), 4);                                       \
            __m512i x = _mm512_set1_epi32(four);                                                   \
            if (raw)                                                                               \
                x = _mm512_xor_si512(x, sign);                                                     \
            PK_UNROLL                                                                              \
            for (int p = 0; p < panels; p++)                                                       \
                sums[r][p] = _mm512_dpbusd_epi32(sums[r][p], x, w[p]);                             \
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

    const __m512 max = _mm512_set1_ps((float)(t->max - t->zero_point));
    const __m512i zero_point = _mm512_set1_epi16((int16_t)t->zero_point);
    const __m512i min = _mm512_set1_epi8((char)t->min);
    __m512 scale[PANELS];
    PK_UNROLL
    for (int p = 0; p < panels; p++)
        scale[p] = _mm512_load_ps(panel + p * panel_size + LANES * 4);
    /* Packing works within 128 bits: of each, 4 channels of panel 0 and 4 of panel 1, for two rows;
     * with one panel, for four rows. */
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const int together = panels == 2 ? 2 : 4;
    const __mmask32 mask = t->channels < 32 ? (1u << t->channels) - 1 : ~0u;
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
        int8_t *const out = t->output + r * t->output_stride;
        if (panels == 2) {
            _mm256_mask_storeu_epi8(out, mask, _mm512_castsi512_si256(bytes));
            if (r + 1 < rows)
                _mm256_mask_storeu_epi8(out + t->output_stride, mask,
                                        _mm512_extracti64x4_epi64(bytes, 1));
        } else {
            const __mmask16 half = (__mmask16)mask;
            _mm_mask_storeu_epi8(out, half, _mm512_castsi512_si128(bytes));
            if (r + 1 < rows)
                _mm_mask_storeu_epi8(out + t->output_stride, half,
                                     _mm512_extracti32x4_epi32(bytes, 1));
            if (r + 2 < rows)
                _mm_mask_storeu_epi8(out + 2 * t->output_stride, half,
                                     _mm512_extracti32x4_epi32(bytes, 2));
            if (r + 3 < rows)
                _mm_mask_storeu_epi8(out + 3 * t->output_stride, half,
                                     _mm512_extracti32x4_epi32(bytes, 3));
        }
    }
}

PK_INLINE void run_rows(const struct pk_qs8_tile *t, size_t rows, const int raw)
{
#define CASE(n)                                                                                    \
    case n:                                                                                        \
        run(t, n, 2, raw);                                                                         \
        return;                                                                                    \
    case n + ROWS:                                                                                 \
        run(t, n, 1, raw);                                                                         \
        return;
    switch (rows + (t->channels <= LANES ? ROWS : 0)) {
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
        CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
    }
#undef CASE
}

static void tile(const struct pk_qs8_tile *t, size_t rows)
{
    if (t->raw)
        run_rows(t, rows, 1);
    else
        run_rows(t, rows, 0);
}

const struct pk_qs8_kernels pk_qs8_avx512vnni = {
    .name = "avx512vnni 12x32", .lanes = LANES, .depth = 4, .flip = 128, .element = 1, .panels = PANELS, .rows = ROWS, .raw = 1,
    .prepare = prepare, .tile = tile,
};
