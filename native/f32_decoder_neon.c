/* The layers of decoders for NEON. */
#include "neon.h"

#define PK_LANES 4
#define PK_ROWS 4

/* 4 rows of 4 floats, `stride` apart, as columns. */
PK_INLINE void transpose(float *to, const float *from, unsigned long stride)
{
    const float32x4_t a = vld1q_f32(from), b = vld1q_f32(from + stride);
    const float32x4_t c = vld1q_f32(from + 2 * stride), d = vld1q_f32(from + 3 * stride);
    const float64x2_t ab = vreinterpretq_f64_f32(vtrn1q_f32(a, b));
    const float64x2_t cd = vreinterpretq_f64_f32(vtrn1q_f32(c, d));
    const float64x2_t upper_ab = vreinterpretq_f64_f32(vtrn2q_f32(a, b));
    const float64x2_t upper_cd = vreinterpretq_f64_f32(vtrn2q_f32(c, d));
    vst1q_f32(to, vreinterpretq_f32_f64(vtrn1q_f64(ab, cd)));
    vst1q_f32(to + 4, vreinterpretq_f32_f64(vtrn1q_f64(upper_ab, upper_cd)));
    vst1q_f32(to + 8, vreinterpretq_f32_f64(vtrn2q_f64(ab, cd)));
    vst1q_f32(to + 12, vreinterpretq_f32_f64(vtrn2q_f64(upper_ab, upper_cd)));
}

#define PK_TRANSPOSE transpose
#include "f32_decoder_vectors.h"

const struct pk_f32_decoder_kernels pk_f32_decoder_neon = {"neon", PK_LANES, norm, gate, attend};
