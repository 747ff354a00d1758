/* What the files of int8 convolution and of products quantized at run time share. */
#ifndef PENSTOCK_QS8_PARTS_H
#define PENSTOCK_QS8_PARTS_H

#include "qs8_conv.h"

/* Kernels read whole vectors and groups beyond the last value of the prepared input. */
#define PK_QS8_SLACK 128

/* How a kernel's taps lie in the prepared input. */
struct pk_qs8_layout {
    size_t run;      /* values of a segment */
    size_t count;    /* of segments */
    size_t per_line; /* of segments, of each line of the kernel */
    size_t depth;    /* groups of a segment */
    size_t header;   /* bytes of a panel before its weights */
    size_t panel;    /* bytes of a packed panel */
    size_t panels;   /* of a group */
    int own;         /* 1: panels end with PK_QS8_OWN */
};

/* How the work is cut. A stripe is a number of output lines of an image (of pixels, if the kernel is
 * 1x1 without stride or padding: `flat`) with its part of the input in scratch memory. */
struct pk_qs8_plan {
    int flat;
    size_t lines;        /* of output, over all images, of all stripes */
    size_t stripe;       /* lines of a stripe, at most */
    size_t unit;         /* stripes begin with a multiple of it */
    size_t per_image;    /* stripes */
    size_t stripes;
    size_t splits;       /* parts of the output channels of each stripe */
    size_t slots;        /* stripes that are in scratch memory at a time */
    size_t width;        /* pixels of a prepared line */
    size_t prepared;     /* prepared lines of a stripe, at most */
    size_t step_height, step_width; /* strides over the prepared lines and pixels */
    size_t apart;        /* lines of the image from one prepared line to the next */
    enum pk_qs8_form form;
    int copied;          /* the input to scratch memory; else rows lie where it does */
    size_t slot;         /* bytes of a stripe in scratch memory: what is prepared, */
    size_t rows;         /* ... from here on the pointers to the rows, */
    size_t corrections;  /* ... and from here on what PK_QS8_SIGNED takes back, or the struct
                          * pk_qd8_row of each pixel of images quantized at run time, */
    size_t own;          /* ... and from here on the own products of each pixel; 0: none */
    size_t wide;         /* bytes of the widened panels of a task, 0 if none are */
    size_t tasks;        /* that have a place in scratch memory for them */
};

struct pk_qs8_plan pk_qs8_plan_of(const struct pk_qs8_conv *conv, const struct pk_qs8_kernels *k);

/* The kernels that run with `isa`. */
const struct pk_qs8_kernels *pk_qs8_kernels_for(uint32_t isa);

/* By what is known when weights are packed. */
enum pk_qs8_form pk_qs8_form_of(const struct pk_qs8_conv *conv, const struct pk_qs8_kernels *k);
struct pk_qs8_layout pk_qs8_layout_of(const struct pk_qs8_conv *conv,
                                      const struct pk_qs8_kernels *k);

/* The weights of a panel behind its header, and the sum of each channel's. `flip`: 0x80 to make them
 * unsigned. */
void pk_qs8_pack_weights(const struct pk_qs8_kernels *k, const struct pk_qs8_layout *l,
                         const int8_t *weights, size_t channels, uint8_t flip, int8_t *to,
                         int32_t *sums);

/* Where the values of `rows` quantized rows begin, behind what pk_qd8_quantize_run says of each. */
static inline size_t pk_qd8_values_at(size_t rows)
{
    return pk_round_up(rows * sizeof(struct pk_qd8_row), PK_ALIGNMENT);
}

/* The operands of a product of rows with packed weights. */
struct pk_qs8_product {
    const void *packed, *values;
    void *output, *scratch;
    /* For rows that were quantized at run time. */
    const struct pk_qd8_row *rows;
    float min, max;
};

/* A product of rows that were quantized at run time, as a convolution of one line of pixels; or a
 * convolution of images that were, each as one row. */
void pk_qs8_conv_run_dynamic(const struct pk_qs8_conv *conv, const struct pk_qs8_product *product,
                             const struct pk_pool *pool);
#endif
