/* Steps of recurrent layers: NEON. */
#define PK_LANES 4
#include "f32_cell_vectors.h"

const struct pk_f32_cell_kernels pk_f32_cell_neon = {"neon", cell};
