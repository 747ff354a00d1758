/* Between fp32 and int8, for scalar. */
#define PK_LANES 4
#define PK_ROWS 3
#include "f32_int8_vectors.h"

const struct pk_f32_int8_kernels pk_f32_int8_scalar = {
    "scalar", quantize, dequantize, scale, narrow, widen, sums, product,
};
