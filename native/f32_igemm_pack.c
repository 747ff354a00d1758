/* fp32 products: which kernels run, and packing of weights. */
#include "f32_igemm.h"

#if PK_X86
#include <xmmintrin.h>
#endif

const struct pk_f32_igemm_kernel *pk_f32_igemm_kernel_for(uint32_t isa)
{
#if PK_X86
    if (isa & PK_ISA_AVX512)
        return &pk_f32_igemm_avx512;
    if (isa & PK_ISA_AVX2)
        return &pk_f32_igemm_avx2;
#elif PK_ARM
    if (isa & PK_ISA_NEON)
        return &pk_f32_igemm_neon;
#endif
    (void)isa;
    return &pk_f32_igemm_scalar;
}

/* Vectors of so many input channels and taps are worth being added up. */
#define SUMMED 4

const struct pk_f32_igemm_kernel *pk_f32_igemm_kernel_of(const struct pk_f32_igemm_shape *shape)
{
#if PK_X86
    const struct pk_f32_igemm_kernel *narrow = NULL;
    if (shape->isa & PK_ISA_AVX512)
        narrow = &pk_f32_narrow_avx512;
    else if (shape->isa & PK_ISA_AVX2)
        narrow = &pk_f32_narrow_avx2;
    if (narrow && !shape->in_order && shape->groups == 1 && shape->output_channels <= narrow->width &&
        shape->input_channels >= narrow->block &&
        shape->taps * shape->input_channels >= SUMMED * narrow->block)
        return narrow;
#endif
    return pk_f32_igemm_kernel_for(shape->isa);
}

PK_EXPORT const char *pk_f32_igemm_kernel(uint32_t isa)
{
    return pk_f32_igemm_kernel_for(isa)->name;
}

struct pk_f32_panels pk_f32_panels_of(const struct pk_f32_igemm_kernel *kernel,
                               const struct pk_f32_igemm_shape *shape)
{
    struct pk_f32_panels p;
    p.full_width = kernel->width * kernel->vectors;
    p.count = pk_divide_up(shape->output_channels, p.full_width);
    p.depth = shape->taps * shape->input_channels;
    const size_t rest = shape->output_channels - (p.count - 1) * p.full_width;
    p.last_width = pk_round_up(rest, kernel->width);
    return p;
}

size_t pk_f32_group_size(const struct pk_f32_panels *p)
{
    return ((p->count - 1) * p->full_width + p->last_width) * (p->depth + 1);
}

PK_EXPORT size_t pk_f32_igemm_packed_size(const struct pk_f32_igemm_shape *shape)
{
    const struct pk_f32_panels p = pk_f32_panels_of(pk_f32_igemm_kernel_of(shape), shape);
    return shape->groups * pk_f32_group_size(&p) * sizeof(float);
}

/* So many weights of each output channel are packed at a time: what is written meanwhile stays in the
 * first level of cache, and so do the lines that are read. */
#define PACK_BLOCK 32
/* So many bytes no cache holds until they are used: they are written past it, which need not read
 * what was there. */
#define PACK_PAST ((size_t)4 << 20)

/* The weights of a panel whose channels lie `stride` apart, those of one channel side by side. */
static void pack_channels(const struct pk_f32_igemm_kernel *kernel, const float *from, size_t stride,
                          size_t columns, size_t depth, float *packed, size_t width, int past)
{
    const size_t block = kernel->block, together = columns - columns % block;
    for (size_t k = 0; k < depth; k += PACK_BLOCK, from += PACK_BLOCK, packed += PACK_BLOCK * width) {
        const size_t count = pk_min(PACK_BLOCK, depth - k), whole = count - count % block;
        for (size_t n = 0; n < together; n += block)
            for (size_t i = 0; i < whole; i += block)
                kernel->transpose(packed + i * width + n, width, from + n * stride + i, stride, past);
        for (size_t i = 0; i < count; i++)
            for (size_t n = i < whole ? together : 0; n < width; n++)
                packed[i * width + n] = n < columns ? from[n * stride + i] : 0.0f;
    }
}

/* The weights of each channel side by side, behind the bias of all. */
static void pack_narrow(const struct pk_f32_igemm_kernel *kernel, const struct pk_f32_igemm_shape *shape,
                        const float *weights, size_t output_stride, size_t input_stride,
                        const float *bias, float *packed)
{
    const size_t depth = shape->taps * shape->input_channels;
    for (size_t n = 0; n < kernel->width; n++) {
        const int there = n < shape->output_channels;
        packed[n] = bias && there ? bias[n] : 0.0f;
        float *to = packed + kernel->width + n * depth;
        for (size_t k = 0; k < depth; k++)
            to[k] = there ? weights[n * output_stride + k * input_stride] : 0.0f;
    }
}

PK_EXPORT void pk_f32_igemm_pack(const struct pk_f32_igemm_shape *shape, const float *weights,
                                 size_t output_stride, size_t input_stride, const float *bias,
                                 float *packed)
{
    const struct pk_f32_igemm_kernel *kernel = pk_f32_igemm_kernel_of(shape);
    const struct pk_f32_panels p = pk_f32_panels_of(kernel, shape);
    if (kernel->narrow) {
        pack_narrow(kernel, shape, weights, output_stride, input_stride, bias, packed);
        return;
    }
    const int past = shape->groups * pk_f32_group_size(&p) * sizeof(float) >= PACK_PAST;
    for (size_t group = 0; group < shape->groups; group++) {
        for (size_t panel = 0; panel < p.count; panel++) {
            const size_t width = panel + 1 < p.count ? p.full_width : p.last_width;
            const size_t first = panel * p.full_width;
            const size_t columns = pk_min(shape->output_channels - first, width);
            const size_t channel = group * shape->output_channels + first;
            for (size_t n = 0; n < width; n++)
                packed[n] = bias && n < columns ? bias[channel + n] : 0.0f;
            packed += width;
            const float *from = weights + channel * output_stride;
            if (input_stride == 1) {
                pack_channels(kernel, from, output_stride, columns, p.depth, packed, width, past);
                packed += p.depth * width;
                continue;
            }
            for (size_t k = 0; k < p.depth; k++, packed += width) {
                for (size_t n = 0; n < columns; n++)
                    packed[n] = from[n * output_stride + k * input_stride];
                for (size_t n = columns; n < width; n++)
                    packed[n] = 0.0f;
            }
        }
    }
#if PK_X86
    if (past)
        _mm_sfence();
#endif
}
