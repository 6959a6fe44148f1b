/* act(gate) * up over a short row, free of branches so that the compiler turns the loops into vectors. */
#ifndef RK_ACTIVATION_H
#define RK_ACTIVATION_H
#include "common.h"
#include <math.h>
#include <string.h>

/* e^x to about one unit in the last place: x = n ln 2 + r, |r| <= ln 2 / 2, a polynomial in r, and the power of
   two applied in two halves so that the result may pass through subnormals to 0 and up to infinity.
   A NaN fails both comparisons and is carried through by the polynomial. */
static inline float rk_exp(float x) {
    x = x > 89.0f ? 89.0f : x;
    x = x < -104.0f ? -104.0f : x;
    const float shift = 12582912.0f; /* 1.5 * 2^23: the sum's low bits are n, rounded to nearest */
    float shifted = x * 1.44269504088896341f + shift;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    float n = shifted - shift;
    float r = x - n * 0.693145751953125f;
    r = r - n * 1.42860682030941723e-6f;
    float p = 1.0f / 5040.0f;
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    int32_t power = (int32_t)(bits - 0x4B400000u);
    int32_t half = power >> 1;
    uint32_t first = ((uint32_t)half + 127u) << 23, second = ((uint32_t)(power - half) + 127u) << 23;
    float scale_first, scale_second;
    memcpy(&scale_first, &first, sizeof first);
    memcpy(&scale_second, &second, sizeof second);
    return p * scale_first * scale_second;
}

static inline void rk_gate(int64_t act, const float *gate, const float *up, float *out, int64_t n) {
    switch (act) {
    case RK_SILU:
        for (int64_t i = 0; i < n; i++) out[i] = gate[i] / (1.0f + rk_exp(-gate[i])) * up[i];
        break;
    case RK_GELU: /* x times the normal distribution's integral; erfc keeps its relative accuracy at x << 0 */
        for (int64_t i = 0; i < n; i++) out[i] = 0.5f * gate[i] * erfcf(gate[i] * -0.70710678118654752f) * up[i];
        break;
    case RK_GELU_TANH: /* (1 + tanh z) / 2 = 1 / (1 + e^(-2z)) */
        for (int64_t i = 0; i < n; i++) {
            float g = gate[i];
            float z = 0.79788456080286536f * (g + 0.044715f * g * g * g);
            out[i] = g / (1.0f + rk_exp(-2.0f * z)) * up[i];
        }
        break;
    default: /* RK_RELU, written so that a NaN stays */
        for (int64_t i = 0; i < n; i++) out[i] = (gate[i] < 0.0f ? 0.0f : gate[i]) * up[i];
        break;
    }
}
#endif
