/* The layers of decoders for NEON. */
#include "f32_transpose_neon.h"
#include "neon.h"

#define PK_LANES 4
#define PK_ROWS 4

#define PK_TRANSPOSE pk_transpose
#include "f32_attention_vectors.h"

const struct pk_f32_decoder_kernels pk_f32_decoder_neon = {"neon", PK_LANES, norm, gate, attend};
