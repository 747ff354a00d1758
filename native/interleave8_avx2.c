/* Three planes of bytes to pixels: 16 pixels a step, by three shuffles for each 16 bytes. */
#include "interleave8.h"

#include <immintrin.h>

size_t pk_interleave8_three_avx2(uint8_t *to, const uint8_t *from, size_t plane, size_t count)
{
    /* Which pixel of plane p goes to byte b of the third t: where 16 t + b = 3 pixel + p. */
    __m128i orders[3][3];
    for (int t = 0; t < 3; t++)
        for (int p = 0; p < 3; p++) {
            char order[16];
            for (int b = 0; b < 16; b++)
                order[b] = (char)((16 * t + b) % 3 == p ? (16 * t + b) / 3 : 0x80);
            orders[t][p] = _mm_loadu_si128((const __m128i *)order);
        }
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        const __m128i a = _mm_loadu_si128((const __m128i *)(from + i));
        const __m128i b = _mm_loadu_si128((const __m128i *)(from + plane + i));
        const __m128i c = _mm_loadu_si128((const __m128i *)(from + 2 * plane + i));
        for (int t = 0; t < 3; t++) {
            const __m128i found = _mm_or_si128(
                _mm_or_si128(_mm_shuffle_epi8(a, orders[t][0]), _mm_shuffle_epi8(b, orders[t][1])),
                _mm_shuffle_epi8(c, orders[t][2]));
            _mm_storeu_si128((__m128i *)(to + 3 * i + 16 * t), found);
        }
    }
    return i;
}
