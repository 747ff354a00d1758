/* Rows quantized at run time, and their products with int8 weights. See qs8_conv.h. */
#include "qd8_conv.h"
#include "qs8_parts.h"

/* The product as a convolution of one line of pixels. */
static struct pk_qs8_conv conv_of(const struct pk_qd8_product *p)
{
    return (struct pk_qs8_conv){
        .isa = p->isa, .groups = 1, .group_input = p->inputs, .group_output = p->outputs,
        .kernel_height = 1, .kernel_width = 1, .stride_height = 1, .stride_width = 1,
        .dilation_height = 1, .dilation_width = 1, .batch = 1, .input_height = 1,
        .input_width = p->rows, .output_height = 1, .output_width = p->rows,
        .threads = p->threads, .cache = p->cache, .flat = 1, .dynamic = 1,
    };
}

size_t pk_qd8_product_packed_size(const struct pk_qd8_product *product)
{
    const struct pk_qs8_conv conv = conv_of(product);
    return pk_qs8_conv_packed_size(&conv);
}

void pk_qd8_product_pack(const struct pk_qd8_product *product, const int8_t *weights,
                         const float *bias, const float *scale, void *packed)
{
    const struct pk_qs8_conv conv = conv_of(product);
    pk_qd8_conv_pack(&conv, weights, bias, scale, packed);
}

size_t pk_qd8_product_scratch_size(const struct pk_qd8_product *product)
{
    const struct pk_qs8_conv conv = conv_of(product);
    return pk_qs8_conv_scratch_size(&conv);
}

void pk_qd8_product_run(const struct pk_qd8_product_task *task, const struct pk_pool *pool)
{
    const struct pk_qs8_conv conv = conv_of(&task->product);
    const struct pk_qs8_product product = {
        .rows = task->input, .packed = task->packed,
        .values = (const char *)task->input + pk_qd8_values_at(task->product.rows),
        .output = task->output, .scratch = task->scratch,
        .min = task->product.min, .max = task->product.max,
    };
    pk_qs8_conv_run_dynamic(&conv, &product, pool);
}

const char *pk_qd8_product_kernel(uint32_t isa)
{
    return pk_qs8_kernels_for(isa)->name;
}

size_t pk_qd8_quantize_size(const struct pk_qd8_quantize *q)
{
    return pk_qd8_values_at(q->rows) + q->rows * q->channels * pk_qs8_kernels_for(q->isa)->element + PK_QS8_SLACK;
}

struct quantize_work {
    const struct pk_qd8_quantize_task *task;
    const struct pk_qs8_kernels *k;
    size_t chunks;
};

static void quantize_chunk(void *context, size_t index)
{
    const struct quantize_work *w = context;
    const struct pk_qd8_quantize *q = &w->task->quantize;
    struct pk_qd8_row *const rows = w->task->output;
    char *const values = (char *)w->task->output + pk_qd8_values_at(q->rows);
    for (size_t r = q->rows * index / w->chunks; r < q->rows * (index + 1) / w->chunks; r++)
        w->k->quantize(values + r * q->channels * w->k->element, rows + r,
                       w->task->input + r * q->channels, q->channels);
}

void pk_qd8_quantize_run(const struct pk_qd8_quantize_task *task, const struct pk_pool *pool)
{
    const struct pk_qd8_quantize *q = &task->quantize;
    struct quantize_work w = {.task = task, .k = pk_qs8_kernels_for(q->isa)};
    w.chunks = q->threads > 1 ? pk_min(q->rows, 4 * q->threads) : 1;
    pk_parallelize(pool, quantize_chunk, &w, w.chunks);
}

const char *pk_qd8_quantize_kernel(uint32_t isa)
{
    return pk_qs8_kernels_for(isa)->name;
}
