/* int8 convolution with AVX-VNNI: four values a step. The input has its sign bit flipped
 * (0 .. 255, as vpdpbusd wants it); the packed bias takes back what that adds. */
#include <immintrin.h>

#define ROWS 6
#define DEPTH 4

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

static void tile(const struct pk_qs8_tile *t, size_t rows)
{
    run_rows(t, rows, 1);
}

const struct pk_qs8_kernels pk_qs8_avxvnni = {
    .name = "avxvnni 6x16", .lanes = LANES, .depth = DEPTH, .flip = 128, .element = 1, .panels = PANELS, .rows = ROWS,
    .prepare = prepare, .tile = tile,
};
