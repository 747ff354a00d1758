/* The layers of decoders for avx2. */
#include "f32_exp_avx2.h"
#include "f32_transpose_avx2.h"

#define PK_LANES 8
#define PK_ROWS 3

#define PK_TRANSPOSE pk_transpose
#include "f32_attention_vectors.h"

const struct pk_f32_decoder_kernels pk_f32_decoder_avx2 = {"avx2", PK_LANES, norm, gate, attend};
