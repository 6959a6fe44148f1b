/* A tensor of the call's dtype in as floats. Included after an instruction set's vector header. */
#ifndef RK_WIDEN_H
#define RK_WIDEN_H
#include "common.h"
#include <string.h>

/* n values of a tensor from in[at ...] as floats, zero padded to `padded`. */
static inline void widen_row(int64_t dtype, const void *in, int64_t at, int64_t n, float *out, int64_t padded) {
    const int64_t whole = dtype == RK_F32 ? n : n - n % VL;
    if (dtype == RK_F32) {
        memcpy(out, (const float *)in + at, (size_t)n * sizeof(float));
    } else if (dtype == RK_BF16) {
        const uint16_t *p = (const uint16_t *)in + at;
        for (int64_t i = 0; i < whole; i += VL) vec_store_f32(out + i, vec_load_bf16(p + i));
    } else {
        const uint16_t *p = (const uint16_t *)in + at;
        for (int64_t i = 0; i < whole; i += VL) vec_store_f32(out + i, vec_load_f16(p + i));
    }
    if (whole < n) {
        uint16_t tail[VL] = {0};
        float wide[VL];
        memcpy(tail, (const uint16_t *)in + at + whole, (size_t)(n - whole) * sizeof(uint16_t));
        vec_store_f32(wide, dtype == RK_BF16 ? vec_load_bf16(tail) : vec_load_f16(tail));
        memcpy(out + whole, wide, (size_t)(n - whole) * sizeof(float));
    }
    memset(out + n, 0, (size_t)(padded - n) * sizeof(float));
}
#endif
