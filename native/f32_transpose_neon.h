/* Floats as columns, with NEON. */
#ifndef PENSTOCK_F32_TRANSPOSE_NEON_H
#define PENSTOCK_F32_TRANSPOSE_NEON_H

#include "core.h"

#include <arm_neon.h>

/* 4 rows of 4 floats, `step` apart, as columns, `stride` apart. */
PK_INLINE void pk_transpose(float *to, size_t stride, const float *from, size_t step)
{
    const float32x4_t a = vld1q_f32(from), b = vld1q_f32(from + step);
    const float32x4_t c = vld1q_f32(from + 2 * step), d = vld1q_f32(from + 3 * step);
    const float64x2_t ab = vreinterpretq_f64_f32(vtrn1q_f32(a, b));
    const float64x2_t cd = vreinterpretq_f64_f32(vtrn1q_f32(c, d));
    const float64x2_t upper_ab = vreinterpretq_f64_f32(vtrn2q_f32(a, b));
    const float64x2_t upper_cd = vreinterpretq_f64_f32(vtrn2q_f32(c, d));
    vst1q_f32(to, vreinterpretq_f32_f64(vtrn1q_f64(ab, cd)));
    vst1q_f32(to + stride, vreinterpretq_f32_f64(vtrn1q_f64(upper_ab, upper_cd)));
    vst1q_f32(to + 2 * stride, vreinterpretq_f32_f64(vtrn2q_f64(ab, cd)));
    vst1q_f32(to + 3 * stride, vreinterpretq_f32_f64(vtrn2q_f64(upper_ab, upper_cd)));
}
#endif
