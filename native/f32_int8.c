/* Between fp32 and int8: packing, and spreading over threads. See f32_int8.h. */
#include "f32_int8.h"

#include <string.h>

static const struct pk_f32_int8_kernels *kernels_for(uint32_t isa)
{
#if PK_X86
    if (isa & PK_ISA_AVX512)
        return &pk_f32_int8_avx512;
    if (isa & PK_ISA_AVX2)
        return &pk_f32_int8_avx2;
#elif PK_ARM
    if (isa & PK_ISA_NEON)
        return &pk_f32_int8_neon;
#endif
    (void)isa;
    return &pk_f32_int8_scalar;
}

#define PK_KERNELS struct pk_f32_int8_kernels
#include "pieces.h"

PK_SPREAD(quantize, quantize, pk_divide_up(task->count, PK_F32_INT8_CHUNK), PK_F32_INT8_CHUNK)
PK_SPREAD(dequantize, dequantize, pk_divide_up(task->count, PK_F32_INT8_CHUNK), PK_F32_INT8_CHUNK)
PK_SPREAD(scale, scale, task->rows, task->size)
PK_SPREAD(narrow, narrow, task->rows, 2 * task->size)
PK_SPREAD(widen, widen, task->rows, task->size)
PK_SPREAD(block_sums, sums, task->blocks, task->size)

size_t pk_f32_qc8_packed_size(const struct pk_f32_qc8_product *product)
{
    return pk_divide_up(product->outputs, PK_F32_QC8_LANES) * pk_f32_qc8_panel(product->inputs);
}

void pk_f32_qc8_pack(const struct pk_f32_qc8_product *product, const int8_t *weights,
                     const float *scale, void *packed)
{
    const size_t size = pk_f32_qc8_panel(product->inputs);
    char *to = packed;
    for (size_t first = 0; first < product->outputs; first += PK_F32_QC8_LANES, to += size) {
        float *const scales = (float *)to;
        int8_t *const panel = (int8_t *)(scales + PK_F32_QC8_LANES);
        memset(to, 0, size);
        for (size_t o = 0; o < pk_min(PK_F32_QC8_LANES, product->outputs - first); o++) {
            scales[o] = scale[first + o];
            for (size_t i = 0; i < product->inputs; i++)
                panel[i * PK_F32_QC8_LANES + o] = weights[(first + o) * product->inputs + i];
        }
    }
}

static void run_qc8(void *context, size_t index)
{
    const struct pieces *p = context;
    p->kernels->product(p->task, piece_begin(p, index), piece_begin(p, index + 1));
}

/* Each worker takes some of the panels for all rows. */
void pk_f32_qc8_run(const struct pk_f32_qc8_task *task, const struct pk_pool *pool)
{
    const struct pk_f32_qc8_product *p = &task->product;
    struct pieces work = pieces_of(task, p->isa, pk_divide_up(p->outputs, PK_F32_QC8_LANES),
                                   p->rows * p->inputs * PK_F32_QC8_LANES, pool);
    pk_parallelize(pool, run_qc8, &work, work.pieces);
}

const char *pk_f32_qc8_kernel(uint32_t isa)
{
    return kernels_for(isa)->name;
}
