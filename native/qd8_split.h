/* A row that was quantized at run time times int8 weights with a scale for each channel, of which
 * channels in the middle fit in 6 bits: those by pk_qd8_int4_run, what lies before and behind them by
 * pk_qd8_product_run. A language model's head has such weights: rows of frequent tokens keep 8 bits. */
#ifndef PENSTOCK_QD8_SPLIT_H
#define PENSTOCK_QD8_SPLIT_H

#include "qd8_int4.h"

struct pk_qd8_split_task {
    /* Of one row each, with no addresses but those of packed weights; 0 outputs: there are none. */
    struct pk_qd8_product_task before;
    struct pk_qd8_int4_task middle;
    struct pk_qd8_product_task behind;
    const void *input; /* of pk_qd8_quantize_run */
    float *output;     /* of all channels */
    void *scratch;     /* as much as the one needs that needs most */
};

PK_EXPORT void pk_qd8_split_run(const struct pk_qd8_split_task *task, const struct pk_pool *pool);
#endif
