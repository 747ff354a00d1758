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
    .name = "avxvnni 6x8", .lanes = LANES, .rows = ROWS, .flip = 0x88, .factor = 16, .element = 1,
    .unpack = unpack, .tiles = tiles,
};
