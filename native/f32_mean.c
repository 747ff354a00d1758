/* Means over the pixels of fp32 images: spreading over threads. See f32_mean.h. */
#include "f32_mean.h"

static const struct pk_f32_mean_kernels *kernels_for(uint32_t isa)
{
#if PK_X86
    if (isa & PK_ISA_AVX512)
        return &pk_f32_mean_avx512;
    if (isa & PK_ISA_AVX2)
        return &pk_f32_mean_avx2;
#elif PK_ARM
    if (isa & PK_ISA_NEON)
        return &pk_f32_mean_neon;
#endif
    (void)isa;
    return &pk_f32_mean_scalar;
}

#define PK_KERNELS struct pk_f32_mean_kernels
#include "pieces.h"

PK_SPREAD(mean, mean, task->images *pk_divide_up(task->channels, PK_F32_MEAN_CHANNELS),
          task->pixels *PK_F32_MEAN_CHANNELS)
