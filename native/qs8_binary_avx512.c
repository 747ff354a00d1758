/* Sums and products of int8 tensors with AVX-512: 16 elements a step, tails by masks. */
#include "qs8_binary.h"

#include <immintrin.h>

PK_INLINE __m128i sixteen(const struct pk_qs8_binary_params *p, __m128i a, __m128i b,
                          const int product)
{
    __m512i x = _mm512_cvtepi8_epi32(a), y = _mm512_cvtepi8_epi32(b);
    if (product) {
        x = _mm512_sub_epi32(x, _mm512_set1_epi32(p->a_zero_point));
        y = _mm512_sub_epi32(y, _mm512_set1_epi32(p->b_zero_point));
        y = _mm512_and_si512(y, _mm512_set1_epi32(0xffff)); /* 9 bits: as in qs8_binary_avx2.c */
        const __m512 q = _mm512_cvtepi32_ps(_mm512_madd_epi16(x, y));
        x = _mm512_cvtps_epi32(_mm512_mul_ps(q, _mm512_set1_ps(p->scale)));
    } else {
        x = _mm512_mullo_epi32(x, _mm512_set1_epi32(p->a_multiplier));
        y = _mm512_mullo_epi32(y, _mm512_set1_epi32(p->b_multiplier));
        x = _mm512_add_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(p->bias)), y);
        x = _mm512_sra_epi32(x, _mm_cvtsi32_si128(p->shift));
    }
    const __m256i words = _mm256_adds_epi16(_mm512_cvtsepi32_epi16(x),
                                            _mm256_set1_epi16((int16_t)p->zero_point));
    const __m128i bytes = _mm256_cvtsepi16_epi8(words);
    return _mm_min_epi8(_mm_max_epi8(bytes, _mm_set1_epi8((char)p->min)),
                        _mm_set1_epi8((char)p->max));
}

PK_INLINE void run(const struct pk_qs8_binary_params *p, const int8_t *a, const int8_t *b,
                   size_t a_step, size_t b_step, size_t count, int8_t *output, const int product)
{
    const __m128i one_a = _mm_set1_epi8((char)*a), one_b = _mm_set1_epi8((char)*b);
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        const __m128i x = a_step ? _mm_loadu_si128((const __m128i *)(a + i)) : one_a;
        const __m128i y = b_step ? _mm_loadu_si128((const __m128i *)(b + i)) : one_b;
        _mm_storeu_si128((__m128i *)(output + i), sixteen(p, x, y, product));
    }
    if (i < count) {
        const __mmask16 some = (__mmask16)((1u << (count - i)) - 1);
        const __m128i x = a_step ? _mm_maskz_loadu_epi8(some, a + i) : one_a;
        const __m128i y = b_step ? _mm_maskz_loadu_epi8(some, b + i) : one_b;
        _mm_mask_storeu_epi8(output + i, some, sixteen(p, x, y, product));
    }
}

void pk_qs8_binary_avx512(const struct pk_qs8_binary_params *p, const int8_t *a, const int8_t *b,
                          size_t a_step, size_t b_step, size_t count, int8_t *output)
{
    if (p->product)
        run(p, a, b, a_step, b_step, count, output, 1);
    else
        run(p, a, b, a_step, b_step, count, output, 0);
}
