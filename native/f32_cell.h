/* A step of a recurrent layer in fp32, which a file has as a product, slices and elementwise nodes.
 *
 * LSTM, with gates in the order i, f, o, g:
 *     gates = input + h @ weights;  c' = sigmoid(f) * c + sigmoid(i) * tanh(g);
 *     output = sigmoid(o) * tanh(c')
 * GRU, with gates in the order r, z, n:
 *     output = n + sigmoid(z) * (h - n), where
 *     n = tanh(input_n + sigmoid(r) * (h @ weights_n + bias)) and r, z = input + h @ weights
 */
#ifndef PENSTOCK_F32_CELL_H
#define PENSTOCK_F32_CELL_H

#include "core.h"

/* Channels of a panel of weights, the last one filled up with zeros. */
#define PK_F32_CELL_CHANNELS 32

enum pk_f32_cell_form { PK_F32_LSTM = 0, PK_F32_GRU = 1 };

struct pk_f32_cell_task {
    uint32_t isa, form;
    size_t rows, hidden;
    size_t input_offset, input_stride; /* of the first row, from row to row, in elements */
    const float *weights;              /* [panels][hidden][PK_F32_CELL_CHANNELS] */
    const float *bias;                 /* [hidden], of a GRU */
    const float *input;
    const float *h;      /* [rows][hidden] */
    const float *c;      /* [rows][hidden], of an LSTM */
    float *cell;         /* c', of an LSTM */
    float *output;
    void *scratch;
    /* [rows][gates * hidden]: h @ weights, with the bias of a GRU, where that is known; else NULL. */
    const float *product;
};

struct pk_f32_cell_kernels {
    const char *name;
    void (*cell)(const struct pk_f32_cell_task *task);
};

extern const struct pk_f32_cell_kernels pk_f32_cell_scalar;
#if PK_X86
extern const struct pk_f32_cell_kernels pk_f32_cell_avx2, pk_f32_cell_avx512;
#elif PK_ARM
extern const struct pk_f32_cell_kernels pk_f32_cell_neon;
#endif

PK_EXPORT size_t pk_f32_cell_scratch_size(const struct pk_f32_cell_task *task);
/* Runs on the caller's thread: a step is little work, and the next one waits for it. */
PK_EXPORT void pk_f32_cell_run(const struct pk_f32_cell_task *task, const struct pk_pool *pool);
PK_EXPORT const char *pk_f32_cell_kernel(uint32_t isa);

/* The gates of a row in scratch memory. */
PK_INLINE size_t pk_f32_cell_gates(const struct pk_f32_cell_task *task)
{
    return pk_round_up(task->hidden * (task->form == PK_F32_LSTM ? 4 : 3), PK_F32_CELL_CHANNELS);
}

/* Rows that are multiplied together. */
#define PK_F32_CELL_ROWS 4
#endif
