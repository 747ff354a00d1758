/* Steps of recurrent layers: vectors that every processor has, or that the compiler makes of scalars. */
#define PK_LANES 4
#define fused(a, b, c) ((a) * (b) + (c))
#include "f32_cell_vectors.h"

const struct pk_f32_cell_kernels pk_f32_cell_scalar = {"scalar", cell};
