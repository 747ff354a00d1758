/* Products with int4 weights with AVX-VNNI: weights are multiplied 16 times over, as they come in the
 * high halves of bytes. */
#include "qd8_int4_256.h"

#define ROWS 6
#define PARTS 4

PK_INLINE void halves(INTS x, INTS w[2])
{
    const INTS high = _mm256_set1_epi8((char)0xf0);
    w[0] = _mm256_and_si256(_mm256_slli_epi16(x, 4), high);
    w[1] = _mm256_and_si256(x, high);
}

/* Four times the weights: the upper bits in the high halves of bytes, the lower ones below them. */
PK_INLINE INTS joined(INTS upper, INTS lower)
{
    const INTS high = _mm256_set1_epi8((char)0xf0), low = _mm256_set1_epi8(0x0c);
    return _mm256_or_si256(_mm256_and_si256(upper, high), _mm256_and_si256(lower, low));
}

PK_INLINE void halves_of_6(INTS x, INTS low, const int second, INTS w[2])
{
    const INTS y = second ? _mm256_srli_epi16(low, 4) : low;
    w[0] = joined(_mm256_slli_epi16(x, 4), _mm256_slli_epi16(y, 2));
    w[1] = joined(x, y);
}

PK_INLINE INTS multiply_add(INTS sum, INTS x, INTS w)
{
#if defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(sum, x, w);
#else
    return _mm256_dpbusd_epi32(sum, x, w); /* the same, in AVX-512's encoding: for tests */
#endif
}

PK_INLINE INTS begun(INTS sum) { return sum; }
PK_INLINE INTS ended(INTS sum, INTS running) { (void)sum; return running; }

#include "qd8_int4_vectors.h"

const struct pk_qd8_int4_kernels pk_qd8_int4_avxvnni = {
    .name = "avxvnni 6x8", .lanes = LANES, .rows = ROWS, .flip = 0x88, .factor = 16, .factor6 = 4,
    .element = 1, .unpack = unpack, .unpack6 = unpack6, .tiles = tiles,
};
