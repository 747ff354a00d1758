/* int8 convolution with AVX-VNNI: four values a step. The input has its sign bit flipped
 * (0 .. 255, as vpdpbusd wants it); the packed bias takes back what that adds. */
#include <immintrin.h>

#define ROWS 6
#define DEPTH 4
#define FLIP 128

static inline __attribute__((always_inline)) __m256i multiply_add(__m256i sums, __m256i x, __m256i w)
{
#if defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(sums, x, w);
#else
    return _mm256_dpbusd_epi32(sums, x, w); /* the same, in AVX-512's encoding: for tests */
#endif
}

static inline __attribute__((always_inline)) __m256i load_weights(const char *from, int weight)
{
    (void)weight;
    return _mm256_load_si256((const __m256i *)from);
}

#include "qs8_conv_256.h"

static void prepare(void *to, const int8_t *from, size_t count)
{
    char *const values = to;
    const __m256i sign = _mm256_set1_epi8((char)0x80);
    size_t i = 0;
    for (; i + 32 <= count; i += 32)
        _mm256_storeu_si256(
            (__m256i *)(values + i),
            _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(from + i)), sign));
    for (; i < count; i++)
        values[i] = (char)(from[i] ^ 0x80);
}

static void sum_rows(int32_t *to, const int8_t *from, size_t rows, size_t depth)
{
    const __m256i factor = _mm256_set1_epi8((char)128);
    for (size_t r = 0; r < rows; r++, from += depth) {
        __m256i sums = _mm256_setzero_si256();
        size_t i = 0;
        for (; i + 32 <= depth; i += 32)
            sums = multiply_add(sums, factor, _mm256_loadu_si256((const __m256i *)(from + i)));
        __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sums),
                                     _mm256_extracti128_si256(sums, 1));
        half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
        half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1));
        int32_t sum = _mm_cvtsi128_si32(half);
        for (; i < depth; i++)
            sum += 128 * from[i];
        to[r] = sum;
    }
}

static void put_bytes_of_row(void *to, size_t at, __m256i values, size_t count)
{
    const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packus_epi16(values, values), 0xd8);
    pk_store_tail((int8_t *)to + at, _mm256_castsi256_si128(bytes), count);
}

static void quantize(void *to, struct pk_qd8_row *row, const float *from, size_t count)
{
    quantize_row(to, row, from, count, put_bytes_of_row);
}

static void tiles(const struct pk_qs8_tile *t, size_t pixels, enum pk_qs8_form form)
{
    switch (form) {
    case PK_QS8_PREPARED:
        run_form(t, pixels, 1, PK_QS8_PREPARED);
        break;
    case PK_QS8_SIGNED:
        run_form(t, pixels, 1, PK_QS8_SIGNED);
        break;
    case PK_QS8_DYNAMIC:
        run_form(t, pixels, 1, PK_QS8_DYNAMIC);
        break;
    }
}

const struct pk_qs8_kernels pk_qs8_avxvnni = {
    .name = "avxvnni 6x16", .lanes = LANES, .depth = DEPTH, .flip = FLIP, .element = 1,
    .panels = PANELS, .rows = ROWS, .prepare = prepare, .tiles = tiles, .sum_rows = sum_rows,
    .quantize = quantize,
};
