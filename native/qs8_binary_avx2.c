/* Sums and products of int8 tensors with AVX2: 16 elements a step. */
#include "qs8_binary.h"
#include "store_tail.h"

PK_INLINE __m256i eight(const struct pk_qs8_binary_params *p, __m128i a, __m128i b,
                        const int product)
{
    __m256i x = _mm256_cvtepi8_epi32(a), y = _mm256_cvtepi8_epi32(b);
    if (product) {
        x = _mm256_sub_epi32(x, _mm256_set1_epi32(p->a_zero_point));
        y = _mm256_sub_epi32(y, _mm256_set1_epi32(p->b_zero_point));
        /* Of 9 bits each, so vpmaddwd is a product of the lower halves once the upper ones of one
         * are zeros. */
        y = _mm256_and_si256(y, _mm256_set1_epi32(0xffff));
        const __m256 q = _mm256_cvtepi32_ps(_mm256_madd_epi16(x, y));
        return _mm256_cvtps_epi32(_mm256_mul_ps(q, _mm256_set1_ps(p->scale)));
    }
    x = _mm256_mullo_epi32(x, _mm256_set1_epi32(p->a_multiplier));
    y = _mm256_mullo_epi32(y, _mm256_set1_epi32(p->b_multiplier));
    x = _mm256_add_epi32(_mm256_add_epi32(x, _mm256_set1_epi32(p->bias)), y);
    return _mm256_sra_epi32(x, _mm_cvtsi32_si128(p->shift));
}

PK_INLINE __m128i sixteen(const struct pk_qs8_binary_params *p, __m128i a, __m128i b,
                          const int product)
{
    const __m256i low = eight(p, a, b, product);
    const __m256i high =
        eight(p, _mm_unpackhi_epi64(a, a), _mm_unpackhi_epi64(b, b), product);
    __m256i words = _mm256_adds_epi16(_mm256_packs_epi32(low, high),
                                      _mm256_set1_epi16((int16_t)p->zero_point));
    words = _mm256_permute4x64_epi64(words, 0xd8);
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words),
                                          _mm256_extracti128_si256(words, 1));
    return _mm_min_epi8(_mm_max_epi8(bytes, _mm_set1_epi8((char)p->min)),
                        _mm_set1_epi8((char)p->max));
}

PK_INLINE __m128i rest_of(const int8_t *from, size_t step, size_t count)
{
    int8_t bytes[16] = {0};
    for (size_t i = 0; i < count; i++)
        bytes[i] = from[i * step];
    return _mm_loadu_si128((const __m128i *)bytes);
}

PK_INLINE void run(const struct pk_qs8_binary_params *p, const int8_t *a, const int8_t *b,
                   size_t a_step, size_t b_step, size_t count, int8_t *output, const int product)
{
    size_t i = 0;
    const __m128i one_a = _mm_set1_epi8((char)*a), one_b = _mm_set1_epi8((char)*b);
    for (; i + 16 <= count; i += 16) {
        const __m128i x = a_step ? _mm_loadu_si128((const __m128i *)(a + i)) : one_a;
        const __m128i y = b_step ? _mm_loadu_si128((const __m128i *)(b + i)) : one_b;
        _mm_storeu_si128((__m128i *)(output + i), sixteen(p, x, y, product));
    }
    if (i < count) {
        const __m128i x = rest_of(a + i * a_step, a_step, count - i);
        const __m128i y = rest_of(b + i * b_step, b_step, count - i);
        pk_store_tail(output + i, sixteen(p, x, y, product), count - i);
    }
}

void pk_qs8_binary_avx2(const struct pk_qs8_binary_params *p, const int8_t *a, const int8_t *b,
                        size_t a_step, size_t b_step, size_t count, int8_t *output)
{
    if (p->product)
        run(p, a, b, a_step, b_step, count, output, 1);
    else
        run(p, a, b, a_step, b_step, count, output, 0);
}
