/* Floats out to a tensor of the call's dtype. Included after an instruction set's vector header. */
#ifndef RK_NARROW_H
#define RK_NARROW_H
#include "common.h"
#include <string.h>

/* To nearest, ties to even; a NaN keeps its sign and stays a NaN. */
static inline uint16_t bfloat16_from_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = bits + 0x7FFFu + (bits >> 16 & 1u);
    return (uint16_t)((value != value ? bits | 0x400000u : rounded) >> 16);
}

/* n values into out[at ...]. */
static inline void narrow(int64_t dtype, const float *value, void *out, int64_t at, int64_t n) {
    if (dtype == RK_F32) {
        memcpy((float *)out + at, value, (size_t)n * sizeof(float));
    } else if (dtype == RK_BF16) {
        uint16_t *y = (uint16_t *)out + at;
        for (int64_t i = 0; i < n; i++) y[i] = bfloat16_from_float(value[i]);
    } else {
        uint16_t *y = (uint16_t *)out + at;
        const int64_t whole = n - n % VL;
        for (int64_t i = 0; i < whole; i += VL) vec_store_f16(y + i, vec_load_f32(value + i));
        if (whole < n) {
            float wide[VL] = {0};
            uint16_t half[VL];
            memcpy(wide, value + whole, (size_t)(n - whole) * sizeof(float));
            vec_store_f16(half, vec_load_f32(wide));
            memcpy(y + whole, half, (size_t)(n - whole) * sizeof(uint16_t));
        }
    }
}
#endif
