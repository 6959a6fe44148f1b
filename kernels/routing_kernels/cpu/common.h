/* What every op's sources share: the numbers that the callers pass, and how scratch is laid out. */
#ifndef RK_COMMON_H
#define RK_COMMON_H
#include <omp.h>
#include <stdint.h>

/* Each op takes one record, packed by its caller field by field: every field is eight bytes wide, strides count
   elements. */
_Static_assert(sizeof(void *) == 8, "the call records are packed for 64-bit pointers");

#define EXPORT __attribute__((visibility("default")))

enum rk_dtype { RK_F32 = 0, RK_BF16 = 1, RK_F16 = 2 };
enum rk_act { RK_SILU = 0, RK_GELU = 1, RK_GELU_TANH = 2, RK_RELU = 3 };
enum rk_isa { RK_PORTABLE = 0, RK_AVX2 = 1, RK_AVX512 = 2, RK_AMX = 3, RK_AMX_EMULATED = 4 };
enum rk_status { RK_OK = 0, RK_NO_MEMORY = 1, RK_NO_SUCH_ISA = 2, RK_BAD_INDEX = 3 };

#define RK_PAD 16 /* rows of scratch are padded to the longest vector, so that one layout serves every build */

static inline int64_t rk_padded(int64_t n) { return (n + RK_PAD - 1) / RK_PAD * RK_PAD; }

/* Threads worth waking for `work` units, when fewer than `unit` of them are not worth one. */
static inline int rk_threads(int64_t work, int64_t unit, int64_t most) {
    const int64_t worth = work / unit;
    return (int)(worth < 1 ? 1 : worth < most ? worth : most);
}
#endif
