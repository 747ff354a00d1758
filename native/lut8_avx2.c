/* Bytes through a table with AVX2: sixteen tables of sixteen, each of which answers for the bytes of
 * its sixteen and with zero for all others. */
#include "lut8.h"
#include "unroll.h"

#include <immintrin.h>

static inline __attribute__((always_inline)) __m256i look_up(__m256i x, const uint8_t *table)
{
    /* With 0x70 added, saturating, bytes below 16 keep the sign bit clear, which vpshufb wants. */
    const __m256i offset = _mm256_set1_epi8(0x70), step = _mm256_set1_epi8(16);
    __m256i found = _mm256_setzero_si256();
    PK_UNROLL
    for (int i = 0; i < 16; i++) {
        const __m256i part = _mm256_broadcastsi128_si256(
            _mm_loadu_si128((const __m128i *)(table + 16 * i)));
        found = _mm256_or_si256(found, _mm256_shuffle_epi8(part, _mm256_adds_epu8(x, offset)));
        x = _mm256_sub_epi8(x, step);
    }
    return found;
}

void pk_lut8_avx2(uint8_t *to, const uint8_t *from, size_t count, const uint8_t *table)
{
    size_t i = 0;
    for (; i + 32 <= count; i += 32)
        _mm256_storeu_si256((__m256i *)(to + i),
                            look_up(_mm256_loadu_si256((const __m256i *)(from + i)), table));
    for (; i < count; i++)
        to[i] = table[from[i]];
}
