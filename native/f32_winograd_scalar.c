/* The transforms of F(2x2, 3x3) in plain C: what tests compare with. */
#include <stddef.h>

#define WIDTH 1
#define V float
#define LOAD(address) (*(address))
#define STORE(address, value) (*(address) = (value))
#define SET(value) (value)
#define ADD(a, b) ((a) + (b))
#define SUB(a, b) ((a) - (b))
#define MUL(a, b) ((a) * (b))
#define FMA(a, b, sum) ((a) * (b) + (sum))
#define FNMA(a, b, sum) ((sum) - (a) * (b))
/* NaN, the second one, remains. */
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define LOAD_SOME(address, count) ((void)(count), *(address))
#define STORE_SOME(address, value, count) ((void)(count), *(address) = (value))
#define ALL_ZERO(value) ((value) == 0.0f)

#include "f32_winograd_tile.h"

const struct pk_f32_winograd_kernel pk_f32_winograd_scalar = KERNEL;
