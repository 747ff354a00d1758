/* Between fp32 and int8, for avx512. */
#define PK_LANES 16
#define PK_ROWS 8
#include "f32_int8_vectors.h"

const struct pk_f32_int8_kernels pk_f32_int8_avx512 = {
    "avx512", quantize, dequantize, scale, narrow, widen, sums, product,
};
