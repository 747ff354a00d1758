/* Loops over the registers of a tile must be unrolled, or the tile lies in memory. */
#ifndef PENSTOCK_UNROLL_H
#define PENSTOCK_UNROLL_H
#if defined(__clang__)
#define PK_UNROLL _Pragma("clang loop unroll(full)")
#else
#define PK_UNROLL _Pragma("GCC unroll 32")
#endif
/* Keeps a vector where it is: compilers otherwise reorder sums until registers no longer suffice. */
#define PK_KEEP(vector) __asm__("" : "+x"(vector))
#endif
