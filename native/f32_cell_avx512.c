/* Steps of recurrent layers: AVX-512. */
#include "f32_exp_avx512.h"

#define PK_LANES 16
#include "f32_cell_vectors.h"

const struct pk_f32_cell_kernels pk_f32_cell_avx512 = {"avx512", cell};
