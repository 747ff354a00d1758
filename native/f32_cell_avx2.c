/* Steps of recurrent layers: AVX2. */
#include "f32_exp_avx2.h"

#define PK_LANES 8
#include "f32_cell_vectors.h"

const struct pk_f32_cell_kernels pk_f32_cell_avx2 = {"avx2", cell};
