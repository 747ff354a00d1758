/* Products with int4 weights with AVX-512 VNNI: weights are multiplied 16 times over, as they come in
 * the high halves of bytes. */
#include "core.h"

#include <immintrin.h>

#define LANES 16
#define ROWS 12
#define PARTS 4
#define KEEP(sum)
#define INTS __m512i
#define FLOATS __m512

PK_INLINE INTS load(const char *from) { return _mm512_loadu_si512(from); }
PK_INLINE void store(char *to, INTS x) { _mm512_storeu_si512(to, x); }
PK_INLINE INTS broadcast(int32_t x) { return _mm512_set1_epi32(x); }
PK_INLINE INTS add(INTS x, INTS y) { return _mm512_add_epi32(x, y); }
PK_INLINE INTS subtract(INTS x, INTS y) { return _mm512_sub_epi32(x, y); }
PK_INLINE INTS multiply_ints(INTS x, INTS y) { return _mm512_mullo_epi32(x, y); }
PK_INLINE INTS multiply_add(INTS sum, INTS x, INTS w) { return _mm512_dpbusd_epi32(sum, x, w); }
PK_INLINE INTS begun(INTS sum) { return sum; }
PK_INLINE INTS ended(INTS sum, INTS running) { (void)sum; return running; }
PK_INLINE FLOATS load_floats(const char *from) { return _mm512_loadu_ps(from); }
PK_INLINE FLOATS floats(float x) { return _mm512_set1_ps(x); }
PK_INLINE FLOATS as_floats(INTS x) { return _mm512_cvtepi32_ps(x); }
PK_INLINE FLOATS multiply(FLOATS x, FLOATS y) { return _mm512_mul_ps(x, y); }
PK_INLINE FLOATS plus(FLOATS x, FLOATS y) { return _mm512_add_ps(x, y); }
PK_INLINE FLOATS fused(FLOATS x, FLOATS y, FLOATS z) { return _mm512_fmadd_ps(x, y, z); }
PK_INLINE FLOATS most(FLOATS x, FLOATS y) { return _mm512_max_ps(x, y); }
PK_INLINE FLOATS least(FLOATS x, FLOATS y) { return _mm512_min_ps(x, y); }

PK_INLINE void halves(INTS x, INTS w[2])
{
    const INTS high = _mm512_set1_epi8((char)0xf0);
    w[0] = _mm512_and_si512(_mm512_slli_epi16(x, 4), high);
    w[1] = _mm512_and_si512(x, high);
}

/* Four times the weights: the upper bits in the high halves of bytes, the lower ones below them. */
PK_INLINE INTS joined(INTS upper, INTS lower)
{
    const INTS high = _mm512_set1_epi8((char)0xf0), low = _mm512_set1_epi8(0x0c);
    /* (upper & high) | (lower & low), as lower & low has no bit of high */
    return _mm512_ternarylogic_epi32(upper, high, _mm512_and_si512(lower, low), 0xea);
}

PK_INLINE void halves_of_6(INTS x, INTS low, const int second, INTS w[2])
{
    const INTS y = second ? _mm512_srli_epi16(low, 4) : low;
    w[0] = joined(_mm512_slli_epi16(x, 4), _mm512_slli_epi16(y, 2));
    w[1] = joined(x, y);
}

PK_INLINE FLOATS load_scales(const uint16_t *from)
{
    const __m256i x = _mm256_loadu_si256((const __m256i *)from);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

PK_INLINE void store_floats(float *to, FLOATS x, size_t count)
{
    if (count >= LANES)
        _mm512_storeu_ps(to, x);
    else
        _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), x);
}

#include "qd8_int4_vectors.h"

const struct pk_qd8_int4_kernels pk_qd8_int4_avx512vnni = {
    .name = "avx512vnni 12x16", .lanes = LANES, .rows = ROWS, .flip = 0x88, .factor = 16,
    .factor6 = 4, .element = 1, .unpack = unpack, .unpack6 = unpack6, .tiles = tiles,
};
