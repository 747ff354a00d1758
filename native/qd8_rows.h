/* How a row of floats is quantized at run time, in XNNPACK's order of operations. */
#ifndef PENSTOCK_QD8_ROWS_H
#define PENSTOCK_QD8_ROWS_H

#include "qs8_conv.h"

/* To nearest, ties to even, of |x| < 2^22. */
static inline int32_t pk_qd8_rounded(float x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23 leaves no room for a fraction */
    volatile float sum = x + magic;
    return (int32_t)(sum - magic);
}

/* Of a row between `min` and `max`. Sets the row; returns what its values are multiplied by. */
static inline float pk_qd8_row_of(float min, float max, struct pk_qd8_row *row)
{
    const float low = min < 0 ? min : 0, high = max > 0 ? max : 0;
    const float scale = low == high ? 1.0f : 255.0f / (high - low);
    const float from_min = -128.0f + low * scale, from_max = 127.0f + high * scale;
    float zero_point = from_min + from_max > 0 ? -128.0f - low * scale : 127.0f - high * scale;
    zero_point = zero_point > -128.0f ? zero_point : -128.0f;
    zero_point = zero_point < 127.0f ? zero_point : 127.0f;
    row->zero_point = pk_qd8_rounded(zero_point);
    row->scale = 1.0f / scale;
    return scale;
}
#endif
