/* int8 convolution: which kernels run, and packing. See qs8_conv.h. */
#include "qs8_parts.h"

#include <string.h>

const struct pk_qs8_kernels *pk_qs8_kernels_for(uint32_t isa)
{
#if PK_X86
    if (isa & PK_ISA_AVX512VNNI)
        return &pk_qs8_avx512vnni;
    if (isa & PK_ISA_AVXVNNI)
        return &pk_qs8_avxvnni;
    if (isa & PK_ISA_AVX2)
        return &pk_qs8_avx2;
#elif PK_ARM
    if (isa & PK_ISA_I8MM)
        return &pk_qs8_i8mm;
    if (isa & PK_ISA_DOTPROD)
        return &pk_qs8_dotprod;
    if (isa & PK_ISA_NEON)
        return &pk_qs8_neon;
#endif
    (void)isa;
    return &pk_qs8_scalar;
}

enum pk_qs8_form pk_qs8_form_of(const struct pk_qs8_conv *conv, const struct pk_qs8_kernels *k)
{
    if (conv->dynamic)
        return PK_QS8_DYNAMIC;
    if (conv->flat && !k->flip && k->element == 1)
        return PK_QS8_DIRECT;
    if (!k->sum_rows || conv->groups != 1 || !conv->flat)
        return PK_QS8_PREPARED;
    /* Sums of rows cost more than a copy where there are few channels to make of each value. */
    return conv->group_output <= k->lanes ? PK_QS8_PREPARED : PK_QS8_SIGNED;
}

/* Bytes of a channel's own products. */
static size_t own_size(const struct pk_qs8_conv *conv)
{
    const int three = conv->kernel_height == 3 && conv->kernel_width == 3;
    return three ? PK_QS8_OWN_THREE : PK_QS8_OWN;
}

struct pk_qs8_layout pk_qs8_layout_of(const struct pk_qs8_conv *conv,
                                      const struct pk_qs8_kernels *k)
{
    const int joined = conv->groups == 1 && conv->dilation_width == 1;
    struct pk_qs8_layout l;
    l.per_line = joined ? 1 : conv->kernel_width;
    l.run = conv->group_input * (joined ? conv->kernel_width : 1);
    l.count = conv->kernel_height * l.per_line;
    l.depth = pk_divide_up(l.run, k->depth);
    l.header = k->lanes * (conv->dynamic ? PK_QD8_HEADER : PK_QS8_HEADER);
    l.own = k->own_tiles && conv->groups == 1;
    l.panel = pk_round_up(l.header + k->lanes * l.count * l.depth * k->depth +
                              (l.own ? k->lanes * own_size(conv) : 0),
                          PK_ALIGNMENT);
    l.panels = pk_divide_up(conv->group_output, k->lanes);
    return l;
}

size_t pk_qs8_conv_packed_size(const struct pk_qs8_conv *conv)
{
    const struct pk_qs8_layout l = pk_qs8_layout_of(conv, pk_qs8_kernels_for(conv->isa));
    return conv->groups * l.panels * l.panel;
}

/* Values of a channel that are packed at a time: what is written meanwhile, by all channels of a
 * panel, stays in the first level of cache. A multiple of each kernel's depth. */
#define PACK_BLOCK 128

/* Up to PACK_BLOCK values of a channel, each group of `depth` where it belongs: groups of the next
 * step are `step` bytes away. What fills up a group stays zero. */
PK_INLINE void pack_block(const int8_t *from, size_t count, const size_t depth, size_t step,
                          uint8_t flip, int8_t *to)
{
    size_t i = 0;
    for (; i + depth <= count; i += depth, to += step) {
        uint64_t group[2] = {0, 0};
        memcpy(group, from + i, depth);
        group[0] ^= flip * 0x0101010101010101u;
        group[1] ^= flip * 0x0101010101010101u;
        memcpy(to, group, depth);
    }
    for (size_t j = 0; i + j < count; j++)
        to[j] = (int8_t)(from[i + j] ^ flip);
}

PK_INLINE void pack_channels(const struct pk_qs8_layout *l, const int8_t *weights, size_t channels,
                             const size_t depth, size_t step, uint8_t flip, int8_t *to)
{
    for (size_t s = 0; s < l->count; s++, to += l->depth * step)
        for (size_t i = 0; i < l->run; i += PACK_BLOCK)
            for (size_t c = 0; c < channels; c++)
                pack_block(weights + (c * l->count + s) * l->run + i,
                           pk_min(PACK_BLOCK, l->run - i), depth, step, flip,
                           to + i / depth * step + c * depth);
}

void pk_qs8_pack_weights(const struct pk_qs8_kernels *k, const struct pk_qs8_layout *l,
                         const int8_t *weights, size_t channels, uint8_t flip, int8_t *to,
                         int32_t *sums)
{
    const size_t step = k->lanes * k->depth, size = l->count * l->run;
    for (size_t c = 0; c < channels; c++) {
        const int8_t *const from = weights + c * size;
        uint32_t sum = 0;
        for (size_t i = 0; i < size; i++)
            sum += (uint32_t)from[i];
        sums[c] = (int32_t)sum;
    }
    if (k->depth == 16)
        pack_channels(l, weights, channels, 16, step, flip, to);
    else if (k->depth == 8)
        pack_channels(l, weights, channels, 8, step, flip, to);
    else if (k->depth == 4)
        pack_channels(l, weights, channels, 4, step, flip, to);
    else if (k->depth == 2)
        pack_channels(l, weights, channels, 2, step, flip, to);
    else
        pack_channels(l, weights, channels, 1, step, flip, to);
}

void pk_qs8_conv_pack(const struct pk_qs8_conv *conv, const int8_t *weights, const int32_t *bias,
                      const float *scale, void *packed)
{
    const struct pk_qs8_kernels *k = pk_qs8_kernels_for(conv->isa);
    const struct pk_qs8_layout l = pk_qs8_layout_of(conv, k);
    const int is_signed = pk_qs8_form_of(conv, k) == PK_QS8_SIGNED;
    /* What kernels multiply is the input and this much more. */
    const uint32_t offset = (uint32_t)(conv->input_zero_point + (is_signed ? 0 : k->flip));
    int8_t *to = packed;
    memset(packed, 0, conv->groups * l.panels * l.panel);
    for (size_t g = 0; g < conv->groups; g++) {
        for (size_t p = 0; p < l.panels; p++, to += l.panel) {
            const size_t within = p * k->lanes, first = g * conv->group_output + within;
            const size_t channels = pk_min(k->lanes, conv->group_output - within);
            int32_t *const start = (int32_t *)to;
            float *const scales = (float *)(start + k->lanes);
            pk_qs8_pack_weights(k, &l, weights + first * l.count * l.run, channels, is_signed ? 0x80 : 0,
                         to + l.header, start);
            for (size_t c = 0; c < channels; c++) {
                const uint32_t b = bias ? (uint32_t)bias[first + c] : 0;
                start[c] = (int32_t)(b - (uint32_t)start[c] * offset);
                scales[c] = scale[first + c];
            }
        }
    }
    if (l.own)
        k->pack_own(conv, &l, packed);
}
