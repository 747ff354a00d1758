/* Vectors of PK_LANES floats, by the compiler's vector types. A file that includes this has defined
 * PK_LANES. */
#ifndef PENSTOCK_F32_VECTORS_H
#define PENSTOCK_F32_VECTORS_H

#include "core.h"

#include <string.h>

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

/* Up to PK_LANES floats, of which `count` exist; zeros stand for the others. */
PK_INLINE vec some(const float *from, size_t count)
{
    if (count == PK_LANES)
        return at(from);
    float x[PK_LANES] = {0};
    memcpy(x, from, count * sizeof(float));
    return at(x);
}

PK_INLINE void put_some(float *to, vec x, size_t count)
{
    if (count == PK_LANES)
        *(vec *)to = x;
    else
        memcpy(to, &x, count * sizeof(float));
}

#endif
