/* Between fp32 and int8, for NEON. */
#define PK_LANES 4
#define PK_ROWS 4
#include "f32_int8_vectors.h"

const struct pk_f32_int8_kernels pk_f32_int8_neon = {
    "neon", quantize, dequantize, scale, narrow, widen, sums, product,
};
