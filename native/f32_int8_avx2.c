/* Between fp32 and int8, for avx2. */
#define PK_LANES 8
#define PK_ROWS 4
#include "f32_int8_vectors.h"

const struct pk_f32_int8_kernels pk_f32_int8_avx2 = {
    "avx2", quantize, dequantize, scale, narrow, widen, sums, product,
};
