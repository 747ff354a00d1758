/* A step of a recurrent layer with int8 weights: the state's rows are quantized at run time and
 * multiplied, and what comes out is a step of f32_cell.h. */
#ifndef PENSTOCK_QD8_CELL_H
#define PENSTOCK_QD8_CELL_H

#include "f32_cell.h"
#include "qs8_conv.h"

struct pk_qd8_cell_task {
    struct pk_f32_cell_task step;  /* with no addresses */
    struct pk_qd8_product product; /* of the state with the weights of all gates */
    const void *packed;
    /* As in pk_f32_cell_task. */
    const float *input, *h, *c;
    float *cell, *output;
    void *scratch;
};

PK_EXPORT size_t pk_qd8_cell_scratch_size(const struct pk_qd8_cell_task *task);
PK_EXPORT void pk_qd8_cell_run(const struct pk_qd8_cell_task *task, const struct pk_pool *pool);
PK_EXPORT const char *pk_qd8_cell_kernel(uint32_t isa);
#endif
