/* The first `count` (up to 16) of 16 bytes, without AVX-512's masks. */
#ifndef PENSTOCK_STORE_TAIL_H
#define PENSTOCK_STORE_TAIL_H

#include "core.h"

#include <immintrin.h>

PK_INLINE void pk_store_tail(int8_t *to, __m128i bytes, size_t count)
{
    if (count >= 16) {
        _mm_storeu_si128((__m128i *)to, bytes);
        return;
    }
    if (count & 8) {
        _mm_storel_epi64((__m128i *)to, bytes);
        bytes = _mm_unpackhi_epi64(bytes, bytes);
        to += 8;
    }
    if (count & 4) {
        const int32_t four = _mm_cvtsi128_si32(bytes);
        __builtin_memcpy(to, &four, 4);
        bytes = _mm_srli_epi64(bytes, 32);
        to += 4;
    }
    if (count & 2) {
        const int16_t two = (int16_t)_mm_extract_epi16(bytes, 0);
        __builtin_memcpy(to, &two, 2);
        bytes = _mm_srli_epi32(bytes, 16);
        to += 2;
    }
    if (count & 1)
        *to = (int8_t)_mm_extract_epi8(bytes, 0);
}
#endif
