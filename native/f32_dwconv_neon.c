/* Depthwise convolution in fp32 with NEON. A vector is a pair of registers: so each pointer that is
 * looked up serves twice the products. */
#include "neon.h"

#define WIDTH 8
#define V float32x4x2_t
#define PAIR(a, b) ((V){{a, b}})
#define LOAD(address) pair_at(address)
#define STORE(address, value) store(address, value)
#define SET(value) PAIR(vdupq_n_f32(value), vdupq_n_f32(value))
#define EACH(operation, a, b) PAIR(operation((a).val[0], (b).val[0]), operation((a).val[1], (b).val[1]))
#define FMA(a, b, sum) fma_of(a, b, sum)
#define MIN(a, b) min_of(a, b)
#define MAX(a, b) max_of(a, b)
#define LOAD_SOME(address, count)                                                                  \
    PAIR(pk_load_floats(address, count), pk_load_floats((address) + 4, (count) > 4 ? (count) - 4 : 0))
#define STORE_SOME(address, value, count) store_some(address, value, count)

PK_INLINE V pair_at(const float *from)
{
    return PAIR(vld1q_f32(from), vld1q_f32(from + 4));
}

PK_INLINE void store(float *to, const V value)
{
    vst1q_f32(to, value.val[0]);
    vst1q_f32(to + 4, value.val[1]);
}

PK_INLINE void store_some(float *to, const V value, size_t count)
{
    pk_store_floats(to, value.val[0], count);
    if (count > 4)
        pk_store_floats(to + 4, value.val[1], count - 4);
}

PK_INLINE V fma_of(const V a, const V b, const V sum)
{
    return PAIR(vfmaq_f32(sum.val[0], a.val[0], b.val[0]),
                vfmaq_f32(sum.val[1], a.val[1], b.val[1]));
}

PK_INLINE V min_of(const V a, const V b)
{
    return EACH(vminq_f32, a, b);
}

PK_INLINE V max_of(const V a, const V b)
{
    return EACH(vmaxq_f32, a, b);
}

#include "f32_dwconv_tile.h"

const struct pk_f32_dwconv_kernel pk_f32_dwconv_neon = {"neon 7x8", WIDTH, row_kernels, any_run};
