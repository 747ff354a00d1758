/* Sums and products of int8 tensors with NEON: 16 elements a step. */
#include "neon.h"
#include "qs8_binary.h"

PK_INLINE int32x4_t four(const struct pk_qs8_binary_params *p, int16x4_t a, int16x4_t b,
                         const int product)
{
    if (product) { /* less their zero points */
        const float32x4_t q = vcvtq_f32_s32(vmull_s16(a, b));
        return vcvtnq_s32_f32(vmulq_n_f32(q, p->scale));
    }
    int32x4_t sum = vmlaq_n_s32(vdupq_n_s32(p->bias), vmovl_s16(a), p->a_multiplier);
    sum = vmlaq_n_s32(sum, vmovl_s16(b), p->b_multiplier);
    return vshlq_s32(sum, vdupq_n_s32(-p->shift));
}

PK_INLINE int8x8_t eight(const struct pk_qs8_binary_params *p, int8x8_t a, int8x8_t b,
                         const int product)
{
    int16x8_t x = vmovl_s8(a), y = vmovl_s8(b);
    if (product) {
        x = vsubq_s16(x, vdupq_n_s16((int16_t)p->a_zero_point));
        y = vsubq_s16(y, vdupq_n_s16((int16_t)p->b_zero_point));
    }
    const int16x8_t words =
        vcombine_s16(vqmovn_s32(four(p, vget_low_s16(x), vget_low_s16(y), product)),
                     vqmovn_s32(four(p, vget_high_s16(x), vget_high_s16(y), product)));
    return vqmovn_s16(vqaddq_s16(words, vdupq_n_s16((int16_t)p->zero_point)));
}

PK_INLINE int8x16_t sixteen(const struct pk_qs8_binary_params *p, int8x16_t a, int8x16_t b,
                            const int product)
{
    const int8x16_t bytes = vcombine_s8(eight(p, vget_low_s8(a), vget_low_s8(b), product),
                                        eight(p, vget_high_s8(a), vget_high_s8(b), product));
    return vminq_s8(vmaxq_s8(bytes, vdupq_n_s8((int8_t)p->min)), vdupq_n_s8((int8_t)p->max));
}

PK_INLINE int8x16_t rest_of(const int8_t *from, size_t step, size_t count)
{
    int8_t bytes[16] = {0};
    for (size_t i = 0; i < count; i++)
        bytes[i] = from[i * step];
    return vld1q_s8(bytes);
}

PK_INLINE void run(const struct pk_qs8_binary_params *p, const int8_t *a, const int8_t *b,
                   size_t a_step, size_t b_step, size_t count, int8_t *output, const int product)
{
    size_t i = 0;
    const int8x16_t one_a = vdupq_n_s8(*a), one_b = vdupq_n_s8(*b);
    for (; i + 16 <= count; i += 16) {
        const int8x16_t x = a_step ? vld1q_s8(a + i) : one_a;
        const int8x16_t y = b_step ? vld1q_s8(b + i) : one_b;
        vst1q_s8(output + i, sixteen(p, x, y, product));
    }
    if (i < count) {
        const int8x16_t x = rest_of(a + i * a_step, a_step, count - i);
        const int8x16_t y = rest_of(b + i * b_step, b_step, count - i);
        pk_store_tail(output + i, sixteen(p, x, y, product), count - i);
    }
}

void pk_qs8_binary_neon(const struct pk_qs8_binary_params *p, const int8_t *a, const int8_t *b,
                        size_t a_step, size_t b_step, size_t count, int8_t *output)
{
    if (p->product)
        run(p, a, b, a_step, b_step, count, output, 1);
    else
        run(p, a, b, a_step, b_step, count, output, 0);
}
