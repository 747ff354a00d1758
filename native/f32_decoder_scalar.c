/* The layers of decoders: vectors that every processor has, or that the compiler makes of scalars. */
#define PK_LANES 4
#define PK_ROWS 3
#include "f32_attention_vectors.h"

const struct pk_f32_decoder_kernels pk_f32_decoder_scalar = {"scalar", PK_LANES, norm, gate, attend};
