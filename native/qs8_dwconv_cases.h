/* The shapes for which blocks are compiled: PK_QS8_DW_CASES(block) calls block(b, outputs, kernel
 * width, stride, shared) with constants. */
#ifndef PENSTOCK_QS8_DWCONV_CASES_H
#define PENSTOCK_QS8_DWCONV_CASES_H

#define PK_QS8_DW_SHAPE(block, width, step)                                                        \
    if (shared && b->kernel_width == width && stride == step) {                                    \
        if (outputs == 4)                                                                          \
            block(b, 4, width, step, 1);                                                           \
        else if (outputs == 2)                                                                     \
            block(b, 2, width, step, 1);                                                           \
        else                                                                                       \
            block(b, 1, width, step, 1);                                                           \
        return;                                                                                    \
    }
#define PK_QS8_DW_CASES(block)                                                                     \
    PK_QS8_DW_SHAPE(block, 3, 1)                                                                   \
    PK_QS8_DW_SHAPE(block, 3, 2)                                                                   \
    PK_QS8_DW_SHAPE(block, 5, 1)                                                                   \
    PK_QS8_DW_SHAPE(block, 5, 2)                                                                   \
    PK_QS8_DW_SHAPE(block, 7, 1)                                                                   \
    if (outputs == 4)                                                                              \
        block(b, 4, 0, 0, 0);                                                                      \
    else if (outputs == 2)                                                                         \
        block(b, 2, 0, 0, 0);                                                                      \
    else                                                                                           \
        block(b, 1, 0, 0, 0);
#endif
