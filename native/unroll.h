/* Loops over the registers of a tile must be unrolled, or the tile lies in memory. */
#ifndef PENSTOCK_UNROLL_H
#define PENSTOCK_UNROLL_H
#if defined(__clang__)
#define PK_UNROLL _Pragma("clang loop unroll(full)")
#else
#define PK_UNROLL _Pragma("GCC unroll 32")
#endif
/* What has been loaded before is loaded again, and does not stay in a register. */
#define PK_RELOAD __asm__ volatile("" ::: "memory")
/* Keeps a vector where it is: compilers otherwise reorder sums until registers no longer suffice. */
#if defined(__aarch64__)
#define PK_KEEP(vector) __asm__("" : "+w"(vector))
/* ... and in the order of the program, among others of these. */
#define PK_IN_ORDER(vector) __asm__ volatile("" : "+w"(vector))
#elif defined(__AVX512F__)
#define PK_KEEP(vector) __asm__("" : "+v"(vector)) /* all 32 registers */
#else
#define PK_KEEP(vector) __asm__("" : "+x"(vector))
#define PK_IN_ORDER(vector) __asm__ volatile("" : "+x"(vector))
#endif
#endif
