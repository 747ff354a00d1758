/* Products with int4 weights with AVX2: vpmaddubsw of inputs 0 .. 255 and weights -8 .. 7 gives pairs,
 * of which int16 has room for the sum of a chunk's eight (32640 at most); with weights -32 .. 31 for
 * that of two. */
#include "qd8_int4_256.h"

#include <string.h>

#define ROWS 4
#define PARTS 1

PK_INLINE void halves(INTS x, INTS w[2])
{
    const INTS low = _mm256_set1_epi8(15), eight = _mm256_set1_epi8(8);
    w[0] = _mm256_sub_epi8(_mm256_and_si256(x, low), eight);
    w[1] = _mm256_sub_epi8(_mm256_and_si256(_mm256_srli_epi16(x, 4), low), eight);
}

PK_INLINE void halves_of_6(INTS x, INTS low, const int second, INTS w[2])
{
    const INTS high = _mm256_set1_epi8(0x3c), three = _mm256_set1_epi8(3);
    const INTS half = _mm256_set1_epi8(32), y = second ? _mm256_srli_epi16(low, 4) : low;
    w[0] = _mm256_or_si256(_mm256_and_si256(_mm256_slli_epi16(x, 2), high),
                           _mm256_and_si256(y, three));
    w[1] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(x, 2), high),
                           _mm256_and_si256(_mm256_srli_epi16(y, 2), three));
    w[0] = _mm256_sub_epi8(w[0], half);
    w[1] = _mm256_sub_epi8(w[1], half);
}

PK_INLINE INTS multiply_add(INTS sum, INTS x, INTS w)
{
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(x, w));
}

PK_INLINE INTS begun(INTS sum) { (void)sum; return _mm256_setzero_si256(); }

PK_INLINE INTS ended(INTS sum, INTS running)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(running, _mm256_set1_epi16(1)));
}

#include "qd8_int4_vectors.h"

static void prepare(char *to, const void *from, size_t count)
{
    const int16_t *const values = from;
    const __m256i half = _mm256_set1_epi16(128);
    size_t i = 0;
    for (; i + 32 <= count; i += 32) {
        const __m256i a = _mm256_loadu_si256((const __m256i *)(values + i));
        const __m256i b = _mm256_loadu_si256((const __m256i *)(values + i + 16));
        const __m256i x = _mm256_packus_epi16(_mm256_add_epi16(a, half), _mm256_add_epi16(b, half));
        _mm256_storeu_si256((__m256i *)(to + i), _mm256_permute4x64_epi64(x, 0xd8));
    }
    for (; i < count; i++)
        to[i] = (char)(values[i] + 128);
    memset(to + count, 0, pk_round_up(count, PK_INT4_CHUNK) - count);
}

const struct pk_qd8_int4_kernels pk_qd8_int4_avx2 = {
    .name = "avx2 4x8", .lanes = LANES, .rows = ROWS, .factor = 1, .factor6 = 1,
    .element = 2, .prepare = prepare, .unpack = unpack, .unpack6 = unpack6, .tiles = tiles,
};
