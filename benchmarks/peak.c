/* What a core can multiply at most, per call in operations (a multiplication and an addition are
 * two): products that depend on nothing but their own sums. Compiled by benchmarks/peak.py. */
#include <immintrin.h>
#include <stddef.h>

#define KEEP(x) __asm__ volatile("" : "+x"(x))

#define LOOP(type, zero, width, step)                                                              \
    type s0 = zero, s1 = zero, s2 = zero, s3 = zero, s4 = zero, s5 = zero, s6 = zero, s7 = zero;   \
    type x = zero, w = zero;                                                                       \
    KEEP(x);                                                                                       \
    KEEP(w);                                                                                       \
    for (size_t i = 0; i < count; i++) {                                                           \
        step(s0) step(s1) step(s2) step(s3) step(s4) step(s5) step(s6) step(s7)                    \
    }                                                                                              \
    return count * 8 * 2 * (width);

#define VNNI512(s) s = _mm512_dpbusd_epi32(s, x, w); KEEP(s);
__attribute__((target("avx512f,avx512vnni"))) size_t peak_int8_avx512vnni(size_t count)
{
    LOOP(__m512i, _mm512_setzero_si512(), 64, VNNI512)
}

/* Exact products of int16, as int8 needs without VNNI. */
#define MADD256(s)                                                                                 \
    {                                                                                              \
        __m256i p = _mm256_madd_epi16(x, w);                                                       \
        KEEP(p);                                                                                   \
        s = _mm256_add_epi32(s, p);                                                                \
        KEEP(s);                                                                                   \
        KEEP(x);                                                                                   \
    }
__attribute__((target("avx2"))) size_t peak_int8_avx2(size_t count)
{
    LOOP(__m256i, _mm256_setzero_si256(), 16, MADD256)
}
