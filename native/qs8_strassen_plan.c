/* How Strassen's way cuts its work, and when it is worth it. See qs8_strassen.h. */
#include "qs8_strassen_plan.h"

/* The most quads of a chunk, and bytes of their transformed rows. */
#define CHUNK 200
#define CHUNK_BYTES ((size_t)4 << 20)
/* ... and of the chunks that threads have at a time. */
#define CHUNKS_BYTES (4 * CHUNK_BYTES)

/* What is saved of a product's time, and what the transforms of the right matrix take of it for each
 * row less, those of the left one for each output less, the outputs and the ends of loops for each
 * input less: in thousandths, on Zen 3. */
#define SAVED 190
#define PER_ROW 10000
#define PER_OUTPUT 16000
#define PER_INPUT 24000

/* Quads of a share of a chunk, at least. */
#define LEAST_SHARE 6

/* Where there are few groups, and no multiple of the threads, tasks take shares of the rows too:
 * making the right blocks more than once costs less than threads that wait. */
static size_t shares_of(const struct pk_qs8_conv *conv, size_t groups, size_t quads)
{
    if (conv->threads <= 1 || groups % conv->threads == 0 || groups >= 4 * conv->threads)
        return 1;
    size_t shares = 2;
    while (groups * shares % conv->threads)
        shares++;
    return quads / shares >= LEAST_SHARE ? shares : 1;
}

int pk_qs8_strassen_packs(const struct pk_qs8_conv *conv)
{
    return conv->flat && conv->groups == 1 && conv->group_input % 8 == 0 &&
           conv->group_input > PER_INPUT / SAVED;
}

int pk_qs8_strassen_suits(const struct pk_qs8_conv *conv)
{
    const size_t rows = conv->batch * conv->output_height * conv->output_width;
    const size_t outputs = conv->group_output;
    return pk_qs8_strassen_packs(conv) && rows && outputs &&
           pk_round_up(outputs, PK_STRASSEN_CHANNELS) * 15 <= outputs * 16 &&
           PER_ROW / rows + PER_OUTPUT / outputs + PER_INPUT / conv->group_input < SAVED;
}

struct pk_qs8_strassen_plan pk_qs8_strassen_plan_of(const struct pk_qs8_conv *conv)
{
    struct pk_qs8_strassen_plan p;
    p.quads = pk_divide_up(conv->batch * conv->output_height * conv->output_width, 4);
    p.depth = conv->group_input / 4;
    const size_t quad = PK_STRASSEN_PRODUCTS * 2 * p.depth; /* bytes */
    const size_t most = pk_max(pk_min(CHUNK_BYTES / quad, CHUNK), 1);
    p.chunks = pk_divide_up(p.quads, most);
    const int apart = conv->threads > 1 && p.chunks >= conv->threads &&
                      conv->threads * most * quad <= CHUNKS_BYTES;
    if (apart)
        p.chunks = pk_min(pk_round_up(p.chunks, conv->threads), p.quads);
    p.groups = pk_divide_up(conv->group_output, PK_STRASSEN_CHANNELS);
    const size_t chunk = pk_divide_up(p.quads, p.chunks); /* at most */
    /* No multiples of the size of a way of the cache, or blocks push each other out. */
    p.left_step = chunk * p.depth + 32;
    p.right_step = p.depth * 16 + 32;
    p.sums_step = chunk * 16 + 16;
    p.left = pk_round_up(PK_STRASSEN_PRODUCTS * p.left_step * 2, PK_ALIGNMENT);
    p.own = pk_round_up(chunk * 16 * 4, PK_ALIGNMENT);
    p.right = pk_round_up(7 * p.right_step * 2, PK_ALIGNMENT);
    p.sums = pk_round_up(PK_STRASSEN_PRODUCTS * p.sums_step * 4, PK_ALIGNMENT);
    if (apart) {
        p.shares = 1;
        p.slots = p.lefts = conv->threads;
        return p;
    }
    p.shares = shares_of(conv, p.groups, chunk);
    p.slots = conv->threads > 1 ? pk_min(p.groups * p.shares, 2 * conv->threads) : 1;
    p.lefts = 1;
    return p;
}

size_t pk_qs8_strassen_scratch_size(const struct pk_qs8_conv *conv)
{
    const struct pk_qs8_strassen_plan p = pk_qs8_strassen_plan_of(conv);
    return p.lefts * (p.left + p.own) + p.slots * (p.right + p.sums);
}
