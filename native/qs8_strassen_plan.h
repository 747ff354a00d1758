/* How Strassen's way cuts its work. See qs8_strassen.h.
 *
 * Rows go in fours, `quads`: a block of the left matrix has a row of each, one of the right matrix a
 * quarter of the inputs by 16 channels. For a chunk of quads the left matrix is transformed once;
 * then for each 64 output channels, a group, the right one is transformed, the 49 products are made,
 * and the outputs are put together.
 */
#ifndef PENSTOCK_QS8_STRASSEN_PLAN_H
#define PENSTOCK_QS8_STRASSEN_PLAN_H

#include "qs8_strassen.h"

#define PK_STRASSEN_PRODUCTS 49
#define PK_STRASSEN_CHANNELS 64 /* of a group: four blocks of two panels */

struct pk_qs8_strassen_plan {
    size_t quads, chunks, groups;
    size_t depth;                            /* inputs of a block */
    size_t left_step, right_step, sums_step; /* elements from one of the blocks to the next */
    size_t left, own, right, sums;           /* bytes */
    size_t shares;                           /* of a chunk, each with right blocks of its own */
    size_t slots;                            /* tasks, each with its right blocks and sums */
    size_t lefts;                            /* 1, or `slots` if each task has chunks of its own */
};

struct pk_qs8_strassen_plan pk_qs8_strassen_plan_of(const struct pk_qs8_conv *conv);
#endif
