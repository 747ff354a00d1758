/* Layer norms: vectors that every processor has, or that the compiler makes of scalars. */
#include "core.h"

#define PK_LANES 4
#define fused(a, b, c) ((a) * (b) + (c))

#include "f32_vectors.h"

PK_INLINE vec inverse_root(vec x)
{
    vec y;
    for (int i = 0; i < PK_LANES; i++)
        y[i] = 1.0f / __builtin_sqrtf(x[i]);
    return y;
}

#include "f32_layer_norm_vectors.h"

const struct pk_f32_layer_norm_kernels pk_f32_layer_norm_scalar = {"scalar", run};
