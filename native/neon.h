/* What the kernels for ARM share: tails of vectors of 128 bits. */
#ifndef PENSTOCK_NEON_H
#define PENSTOCK_NEON_H

#include "core.h"

#include <arm_neon.h>

/* The first `count` (up to 16) of 16 bytes. */
PK_INLINE void pk_store_tail(int8_t *to, int8x16_t bytes, size_t count)
{
    if (count >= 16) {
        vst1q_s8(to, bytes);
        return;
    }
    if (count & 8) {
        vst1_s8(to, vget_low_s8(bytes));
        bytes = vextq_s8(bytes, bytes, 8);
        to += 8;
    }
    if (count & 4) {
        const int32_t four = vgetq_lane_s32(vreinterpretq_s32_s8(bytes), 0);
        __builtin_memcpy(to, &four, 4);
        bytes = vextq_s8(bytes, bytes, 4);
        to += 4;
    }
    if (count & 2) {
        const int16_t two = vgetq_lane_s16(vreinterpretq_s16_s8(bytes), 0);
        __builtin_memcpy(to, &two, 2);
        bytes = vextq_s8(bytes, bytes, 2);
        to += 2;
    }
    if (count & 1)
        *to = vgetq_lane_s8(bytes, 0);
}

/* The first `count` (up to 4) of 4 floats; the others are zero. */
PK_INLINE float32x4_t pk_load_floats(const float *from, size_t count)
{
    if (count >= 4)
        return vld1q_f32(from);
    float32x4_t found = vdupq_n_f32(0.0f);
    if (count & 2)
        found = vcombine_f32(vld1_f32(from), vdup_n_f32(0.0f));
    if (count == 1)
        return vld1q_lane_f32(from, found, 0);
    return count == 3 ? vld1q_lane_f32(from + 2, found, 2) : found;
}

PK_INLINE void pk_store_floats(float *to, float32x4_t values, size_t count)
{
    if (count >= 4) {
        vst1q_f32(to, values);
        return;
    }
    if (count & 2) {
        vst1_f32(to, vget_low_f32(values));
        values = vextq_f32(values, values, 2);
        to += 2;
    }
    if (count & 1)
        vst1q_lane_f32(to, values, 0);
}
#endif
