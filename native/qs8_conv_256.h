/* The tiles of int8 convolution in registers of 256 bits, for the files that include this: they
 * define `multiply_add(sums, x, w)`, `load_weights(from, weight)` of 8 channels by one group, DEPTH
 * (values of a group), FLIP (what is added to each value) and ROWS. */
#include "qd8_rows.h"
#include "qs8_put_256.h"

/* How far ahead the weights of one row are fetched, in bytes: two panels that are read side by side
 * are no stream that the processor would follow. More does not stay in the first cache. */
#define AHEAD 8192

/* One row has four sums a panel, as each has to wait for the one before it. `weight`: the bytes of a
 * weight in the panels. */
PK_INLINE void run(const struct pk_qs8_tile *t, size_t pixel, const int rows, const int panels,
                   const int weight, const enum pk_qs8_form form)
{
    const char *const panel = t->panel;
    const size_t panel_size = t->panel_size, ahead = t->ahead;
    const size_t next = pk_min(panels * panel_size, AHEAD);
    const int spread = rows == 1;
    __m256i sums[ROWS][PANELS];
    PK_UNROLL
    for (int p = 0; p < panels; p++) {
        if (spread)
            sums[1][p] = sums[2][p] = sums[3][p] = _mm256_setzero_si256();
        const __m256i bias = form == PK_QS8_DYNAMIC
                                 ? _mm256_setzero_si256()
                                 : _mm256_load_si256((const __m256i *)(panel + p * panel_size));
        PK_UNROLL
        for (int r = 0; r < rows; r++)
            sums[r][p] = form == PK_QS8_SIGNED
                             ? _mm256_sub_epi32(bias, _mm256_set1_epi32(t->corrections[pixel + r]))
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
        __m256i w[PANELS];                                                                         \
        PK_UNROLL                                                                                  \
        for (int p = 0; p < panels; p++) {                                                         \
            const char *const from = weights + p * panel_size + LANES * DEPTH * weight * (offset); \
            w[p] = load_weights(from, weight);                                                     \
            /* Once a line, the panels that come next; widened ones are copies. */                 \
            if (rows == 1 && LANES * DEPTH * weight * (offset) % 64 == 0)                          \
                _mm_prefetch(from + next, _MM_HINT_T0);                                            \
            else if (rows > 1 && weight == 1 && LANES * DEPTH * (offset) % 64 == 0)                \
                _mm_prefetch(from + ahead, _MM_HINT_T1);                                           \
        }                                                                                          \
        PK_UNROLL                                                                                  \
        for (int r = 0; r < rows; r++) {                                                           \
            int32_t four;                                                                          \
            __builtin_memcpy(&four, a[r] + 4 * (offset), 4);                                       \
            const __m256i x = _mm256_set1_epi32(four);                                             \
            PK_UNROLL                                                                              \
            for (int p = 0; p < panels; p++) {                                                     \
                __m256i *const sum = &sums[r + part][p];                                           \
                *sum = form == PK_QS8_SIGNED ? multiply_add(*sum, w[p], x)                         \
                                             : multiply_add(*sum, x, w[p]);                        \
                PK_KEEP(*sum);                                                                     \
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
    PK_UNROLL
    for (int p = 0; p < panels && spread; p++)
        sums[0][p] = _mm256_add_epi32(_mm256_add_epi32(sums[0][p], sums[1][p]),
                                      _mm256_add_epi32(sums[2][p], sums[3][p]));
    if (form == PK_QS8_DYNAMIC)
        put_floats(t, pixel, rows, panels, sums);
    else
        put_bytes(t, pixel, rows, panels, sums);
}

PK_INLINE void run_all(const struct pk_qs8_tile *t, size_t pixels, const int panels,
                       const int weight, const enum pk_qs8_form form)
{
    size_t p = 0;
    for (; p + ROWS <= pixels; p += ROWS)
        run(t, p, ROWS, panels, weight, form);
#if ROWS > 4
    if (pixels - p >= 4) {
        run(t, p, 4, panels, weight, form);
        p += 4;
    }
#endif
    if (pixels - p >= 2) {
        run(t, p, 2, panels, weight, form);
        p += 2;
    }
    if (pixels - p)
        run(t, p, 1, panels, weight, form);
}

PK_INLINE void run_form(const struct pk_qs8_tile *t, size_t pixels, const int weight,
                        const enum pk_qs8_form form)
{
    if (t->channels > LANES) {
        run_all(t, pixels, 2, weight, form);
    } else {
        run_all(t, pixels, 1, weight, form);
    }
}

/* Quantizes a row; `put` stores 16 values with FLIP added to each, of which `count` exist. */
PK_INLINE void quantize_row(void *to, struct pk_qd8_row *row, const float *from, size_t count,
                            void (*put)(void *to, size_t at, __m256i values, size_t count))
{
    /* Several, as each has to wait for the one before it. */
    __m256 lowest[4], highest[4];
    PK_UNROLL
    for (int j = 0; j < 4; j++)
        lowest[j] = highest[j] = _mm256_set1_ps(from[0]);
    size_t i = 0;
    for (; i + 32 <= count; i += 32) {
        PK_UNROLL
        for (int j = 0; j < 4; j++) {
            const __m256 x = _mm256_loadu_ps(from + i + 8 * j);
            lowest[j] = _mm256_min_ps(lowest[j], x);
            highest[j] = _mm256_max_ps(highest[j], x);
        }
    }
    for (; i + 8 <= count; i += 8) {
        const __m256 x = _mm256_loadu_ps(from + i);
        lowest[0] = _mm256_min_ps(lowest[0], x);
        highest[0] = _mm256_max_ps(highest[0], x);
    }
    __m256 low = lowest[0], high = highest[0];
    PK_UNROLL
    for (int j = 1; j < 4; j++) {
        low = _mm256_min_ps(low, lowest[j]);
        high = _mm256_max_ps(high, highest[j]);
    }
    float lows[8], highs[8];
    _mm256_storeu_ps(lows, low);
    _mm256_storeu_ps(highs, high);
    for (size_t j = 1; j < 8; j++) {
        lows[0] = lows[j] < lows[0] ? lows[j] : lows[0];
        highs[0] = highs[j] > highs[0] ? highs[j] : highs[0];
    }
    for (; i < count; i++) {
        lows[0] = from[i] < lows[0] ? from[i] : lows[0];
        highs[0] = from[i] > highs[0] ? from[i] : highs[0];
    }
    const __m256 factor = _mm256_set1_ps(pk_qd8_row_of(lows[0], highs[0], row));
    const __m256 most = _mm256_set1_ps((float)(127 - row->zero_point));
    const __m256i zero_point = _mm256_set1_epi16((int16_t)row->zero_point);
    float last[16] = {0};
    for (i = 0; i < count; i += 16) {
        const float *x = from + i;
        if (count - i < 16) {
            for (size_t j = 0; j < count - i; j++)
                last[j] = x[j];
            x = last;
        }
        const __m256 a = _mm256_min_ps(_mm256_mul_ps(_mm256_loadu_ps(x), factor), most);
        const __m256 b = _mm256_min_ps(_mm256_mul_ps(_mm256_loadu_ps(x + 8), factor), most);
        __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
        words = _mm256_adds_epi16(_mm256_permute4x64_epi64(words, 0xd8), zero_point);
        words = _mm256_max_epi16(words, _mm256_set1_epi16(-128));
        put(to, i, _mm256_add_epi16(words, _mm256_set1_epi16(FLIP)),
            count - i < 16 ? count - i : 16);
    }
}
