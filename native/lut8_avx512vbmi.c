/* Bytes through a table with AVX-512 VBMI: each half of the table is two registers. */
#include "lut8.h"

#include <immintrin.h>

void pk_lut8_avx512vbmi(uint8_t *to, const uint8_t *from, size_t count, const uint8_t *table)
{
    const __m512i t0 = _mm512_loadu_si512(table), t1 = _mm512_loadu_si512(table + 64);
    const __m512i t2 = _mm512_loadu_si512(table + 128), t3 = _mm512_loadu_si512(table + 192);
    for (size_t i = 0; i < count; i += 64) {
        const __mmask64 some = count - i >= 64 ? ~0ull : (1ull << (count - i)) - 1;
        const __m512i x = _mm512_maskz_loadu_epi8(some, from + i);
        const __m512i low = _mm512_permutex2var_epi8(t0, x, t1);
        const __m512i high = _mm512_permutex2var_epi8(t2, x, t3);
        const __m512i found = _mm512_mask_blend_epi8(_mm512_movepi8_mask(x), low, high);
        _mm512_mask_storeu_epi8(to + i, some, found);
    }
}
