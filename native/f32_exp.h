/* Exponentials and quotients of vectors of PK_LANES floats. */
#ifndef PENSTOCK_F32_EXP_H
#define PENSTOCK_F32_EXP_H

#include "f32_vectors.h"

#if defined(__clang__)
#pragma clang fp contract(fast)
#endif

/* Files with instructions for these define PK_OWN_EXPONENTIAL and have them. */
#ifndef PK_OWN_EXPONENTIAL
/* e to the power of x, at most 88; below -87 it is 0. */
PK_INLINE vec exponential(vec x)
{
    const vec magic = all(12582912.0f); /* 1.5 * 2^23 leaves no room for a fraction */
    const ints whole = x >= all(-87.0f);
    x = chosen(x < all(88.0f), x, all(88.0f));
    x = chosen(whole, x, all(0));
    const vec shifted = x * 1.44269504f + magic;
    const vec n = shifted - magic;
    const vec r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
    vec p = all(1.98756972e-4f);
    p = p * r + 1.39819994e-3f;
    p = p * r + 8.33345205e-3f;
    p = p * r + 4.16657962e-2f;
    p = p * r + 1.66666654e-1f;
    p = p * r + 0.5f;
    p = p * r * r + r + 1.0f;
    const ints power = (((ints)shifted - (ints)magic) + 127) << 23;
    return (vec)((ints)(p * (vec)power) & whole);
}

/* The greater of both; a if it is NaN. */
PK_INLINE vec at_least(vec a, vec least)
{
    return chosen(a < least, least, a);
}

/* a / b, of which b is finite and not 0. */
PK_INLINE vec quotient(vec a, vec b)
{
    return a / b;
}
#endif

#endif
