/* The most that a processor can do, for benchmarks: multiply-adds on registers alone. */
#ifndef PENSTOCK_PEAK_H
#define PENSTOCK_PEAK_H

#include "core.h"
#include "unroll.h"

/* Vectors that are summed up side by side: more than the latency of two units. */
#define PK_PEAK_SUMS 12

#endif
