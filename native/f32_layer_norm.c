/* Layer norms with XNNPACK's bits: which kernels run, and spreading over threads. See f32_layer_norm.h. */
#include "f32_layer_norm.h"

static const struct pk_f32_layer_norm_kernels *kernels_for(uint32_t isa)
{
#if PK_X86
    if (isa & PK_ISA_AVX512)
        return &pk_f32_layer_norm_avx512;
    if (isa & PK_ISA_AVX2)
        return &pk_f32_layer_norm_avx2;
#endif
    (void)isa;
    return &pk_f32_layer_norm_scalar;
}

#define PK_KERNELS struct pk_f32_layer_norm_kernels
#include "pieces.h"

PK_SPREAD(layer_norm, run, task->rows, 2 * task->channels)
