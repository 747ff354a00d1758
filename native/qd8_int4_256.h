/* Vectors of 256 bits, for products with int4 weights. */
#include "core.h"

#include <immintrin.h>

#define LANES 8
#define KEEP(sum) PK_KEEP(sum)
#define INTS __m256i
#define FLOATS __m256

PK_INLINE INTS load(const char *from) { return _mm256_loadu_si256((const __m256i *)from); }
PK_INLINE void store(char *to, INTS x) { _mm256_storeu_si256((__m256i *)to, x); }
PK_INLINE INTS broadcast(int32_t x) { return _mm256_set1_epi32(x); }
PK_INLINE INTS add(INTS x, INTS y) { return _mm256_add_epi32(x, y); }
PK_INLINE INTS subtract(INTS x, INTS y) { return _mm256_sub_epi32(x, y); }
PK_INLINE INTS multiply_ints(INTS x, INTS y) { return _mm256_mullo_epi32(x, y); }
PK_INLINE FLOATS load_floats(const char *from) { return _mm256_loadu_ps((const float *)from); }
PK_INLINE FLOATS floats(float x) { return _mm256_set1_ps(x); }
PK_INLINE FLOATS as_floats(INTS x) { return _mm256_cvtepi32_ps(x); }
PK_INLINE FLOATS multiply(FLOATS x, FLOATS y) { return _mm256_mul_ps(x, y); }
PK_INLINE FLOATS plus(FLOATS x, FLOATS y) { return _mm256_add_ps(x, y); }
PK_INLINE FLOATS fused(FLOATS x, FLOATS y, FLOATS z) { return _mm256_fmadd_ps(x, y, z); }
PK_INLINE FLOATS most(FLOATS x, FLOATS y) { return _mm256_max_ps(x, y); }
PK_INLINE FLOATS least(FLOATS x, FLOATS y) { return _mm256_min_ps(x, y); }

PK_INLINE FLOATS load_scales(const uint16_t *from)
{
    const __m128i x = _mm_loadu_si128((const __m128i *)from);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}

PK_INLINE void store_floats(float *to, FLOATS x, size_t count)
{
    if (count >= LANES) {
        _mm256_storeu_ps(to, x);
        return;
    }
    const INTS lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_maskstore_ps(to, _mm256_cmpgt_epi32(broadcast((int)count), lanes), x);
}
