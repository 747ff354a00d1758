/* Vectors of PK_LANES floats, by the compiler's vector types. A file that includes this has defined
 * PK_LANES. */
#ifndef PENSTOCK_F32_VECTORS_H
#define PENSTOCK_F32_VECTORS_H

#include "core.h"

#include <string.h>
#if PK_X86
#include <immintrin.h>
#endif

typedef float vec __attribute__((vector_size(4 * PK_LANES), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * PK_LANES), aligned(4), may_alias));
typedef int8_t small __attribute__((vector_size(PK_LANES), aligned(1), may_alias));

PK_INLINE vec at(const float *p)
{
    return *(const vec *)p;
}

PK_INLINE vec widened(const int8_t *p)
{
    return __builtin_convertvector(*(const small *)p, vec);
}

PK_INLINE vec all(float x)
{
    return x - (vec){0};
}

/* Where `mask` is set a, elsewhere b. */
PK_INLINE vec chosen(ints mask, vec a, vec b)
{
    return (vec)(((ints)a & mask) | ((ints)b & ~mask));
}

/* Whether each lane is below `count`. */
PK_INLINE ints lanes_below(size_t count)
{
    static const int32_t numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return *(const ints *)numbers < ((ints){0} + (int32_t)count);
}

/* Up to PK_LANES floats, of which `count` exist; zeros stand for the others. */
PK_INLINE vec some(const float *from, size_t count)
{
    if (count == PK_LANES)
        return at(from);
#if defined(__AVX512F__) && PK_LANES == 16
    return _mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
#elif defined(__AVX2__) && PK_LANES == 8
    return _mm256_maskload_ps(from, (__m256i)lanes_below(count));
#else
    float x[PK_LANES] = {0};
    memcpy(x, from, count * sizeof(float));
    return at(x);
#endif
}

PK_INLINE void put_some(float *to, vec x, size_t count)
{
    if (count == PK_LANES) {
        *(vec *)to = x;
        return;
    }
#if defined(__AVX512F__) && PK_LANES == 16
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), x);
#elif defined(__AVX2__) && PK_LANES == 8
    _mm256_maskstore_ps(to, (__m256i)lanes_below(count), x);
#else
    memcpy(to, &x, count * sizeof(float));
#endif
}

#endif
