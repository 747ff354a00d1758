/* The transforms of F(2x2, 3x3) with NEON. */
#include "neon.h"

#define WIDTH 4
#define V float32x4_t
#define LOAD(address) vld1q_f32(address)
#define STORE(address, value) vst1q_f32(address, value)
#define SET(value) vdupq_n_f32(value)
#define ADD(a, b) vaddq_f32(a, b)
#define SUB(a, b) vsubq_f32(a, b)
#define MUL(a, b) vmulq_f32(a, b)
#define FMA(a, b, sum) vfmaq_f32(sum, a, b)
#define FNMA(a, b, sum) vfmsq_f32(sum, a, b)
#define MIN(a, b) vminq_f32(a, b)
#define MAX(a, b) vmaxq_f32(a, b)
#define LOAD_SOME(address, count) pk_load_floats(address, count)
#define STORE_SOME(address, value, count) pk_store_floats(address, value, count)
#define ALL_ZERO(value) (vminvq_u32(vceqzq_f32(value)) != 0)

#include "f32_winograd_tile.h"

const struct pk_f32_winograd_kernel pk_f32_winograd_neon = KERNEL;
