/* Steps of recurrent layers: NEON. */
#include "neon.h"

#define PK_LANES 4
#define fused(a, b, c) vfmaq_f32(c, a, b)
#include "f32_cell_vectors.h"

const struct pk_f32_cell_kernels pk_f32_cell_neon = {"neon", cell};
