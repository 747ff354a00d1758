/* Which of Winograd's algorithms an int8 convolution goes by. See qs8_winograd.h. */
#include "qs8_winograd.h"

/* The larger tiles' transforms take longer: what they save of the products must be more than so many
 * of a hundred. */
#define THREE_SAVES 5

/* Of a value of the input and a channel; tiles are multiplied in fours. */
static size_t products_of(const struct pk_qs8_conv *conv, size_t out)
{
    const size_t tiles = conv->batch *
                         pk_qs8_tiles_along(out, conv->output_width, conv->dilation_width) *
                         pk_qs8_tiles_along(out, conv->output_height, conv->dilation_height);
    return pk_round_up(tiles, 4) * (out + 2) * (out + 2);
}

static int by_three(const struct pk_qs8_conv *conv)
{
    return products_of(conv, 3) * 100 < products_of(conv, 2) * (100 - THREE_SAVES);
}

static const struct pk_qs8_winograd *of(const struct pk_qs8_conv *conv)
{
    return by_three(conv) ? &pk_qs8_winograd_three : &pk_qs8_winograd_two;
}

int pk_qs8_winograd_can(const struct pk_qs8_conv *conv)
{
    return conv->kernel_height == 3 && conv->kernel_width == 3 && conv->stride_height == 1 &&
           conv->stride_width == 1 && conv->groups == 1 && conv->group_input % 2 == 0 &&
           conv->group_input >= 16 && conv->group_input <= PK_WINOGRAD_CHANNELS &&
           conv->group_output >= 16;
}

int pk_qs8_winograd_suits(const struct pk_qs8_conv *conv)
{
    /* Tiles reach over the border where sizes do not divide, or are small beside the dilation: what
     * they multiply must stay well below the 9 products of each output. */
    const size_t products = by_three(conv) ? products_of(conv, 3) : products_of(conv, 2);
    const size_t outputs = conv->batch * conv->output_height * conv->output_width;
    return products * 10 < outputs * 9 * 7 &&
           pk_qs8_winograd_can(conv);
}

size_t pk_qs8_winograd_scratch_size(const struct pk_qs8_conv *conv)
{
    return of(conv)->scratch_size(conv);
}

void pk_qs8_winograd_run(const struct pk_qs8_conv_task *task, const struct pk_pool *pool)
{
    of(&task->conv)->run(task, pool);
}

void pk_qs8_winograd_pack_own(const struct pk_qs8_conv *conv, const struct pk_qs8_layout *l,
                              void *packed)
{
    pk_qs8_winograd_two.pack_own(conv, l, packed);
    pk_qs8_winograd_three.pack_own(conv, l, packed);
}
