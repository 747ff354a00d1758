/* The layers of decoders for avx512. */
#include "f32_exp_avx512.h"
#include "f32_transpose_avx512.h"

#define PK_LANES 16
#define PK_ROWS 6

#define PK_TRANSPOSE pk_transpose
#include "f32_attention_vectors.h"

const struct pk_f32_decoder_kernels pk_f32_decoder_avx512 = {
    "avx512", PK_LANES, norm, gate, attend,
};
