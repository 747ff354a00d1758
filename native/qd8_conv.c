/* Convolution of images that were quantized at run time. See qd8_conv.h. */
#include "qd8_conv.h"
#include "qs8_parts.h"

#include <string.h>

void pk_qd8_conv_pack(const struct pk_qs8_conv *conv, const int8_t *weights, const float *bias,
                      const float *scale, void *packed)
{
    const struct pk_qs8_kernels *k = pk_qs8_kernels_for(conv->isa);
    const struct pk_qs8_layout l = pk_qs8_layout_of(conv, k);
    char *to = packed;
    memset(packed, 0, conv->groups * l.panels * l.panel);
    for (size_t i = 0; i < conv->groups * l.panels; i++, to += l.panel) {
        const size_t within = i % l.panels * k->lanes;
        const size_t first = i / l.panels * conv->group_output + within;
        const size_t channels = pk_min(k->lanes, conv->group_output - within);
        int32_t *const sums = (int32_t *)to;
        float *const scales = (float *)(sums + k->lanes), *const biases = scales + k->lanes;
        pk_qs8_pack_weights(k, &l, weights + first * l.count * l.run, channels, 0,
                            (int8_t *)to + l.header, sums);
        for (size_t c = 0; c < channels; c++) {
            scales[c] = scale[first + c];
            biases[c] = bias ? bias[first + c] : 0;
        }
    }
    if (l.own)
        k->pack_own(conv, &l, packed);
}

void pk_qd8_conv_run(const struct pk_qd8_conv_task *task, const struct pk_pool *pool)
{
    const struct pk_qs8_product product = {
        .rows = task->input, .packed = task->packed,
        .values = (const char *)task->input + pk_qd8_values_at(task->conv.batch),
        .output = task->output, .scratch = task->scratch,
        .min = task->min, .max = task->max,
    };
    pk_qs8_conv_run_dynamic(&task->conv, &product, pool);
}

const char *pk_qd8_conv_kernel(uint32_t isa)
{
    return pk_qs8_kernels_for(isa)->name;
}
