/* Vectors of 4 floats in the compiler's own vector language: any machine that GCC or Clang builds for. */
#ifndef RK_VEC_H
#define RK_VEC_H
#include <stdint.h>
#include <string.h>

typedef float vec __attribute__((vector_size(16)));
typedef double dvec __attribute__((vector_size(16)));
#define VL 4
/* As with AVX2 (vec_avx2.h says what they are). */
#define LONE_ROWS (sizeof(WT) == 2 ? 1 : 8)
#define DOT_STRETCH (sizeof(WT) == 2 ? 64 : (int64_t)1 << 40)
#define ASK_SOON 1
#define LONE_COLUMNS 4096
#define TILE_TOKENS 3 /* 4 rows x 3 tokens = 12 sums, so that 16 registers suffice */

static inline vec vec_zero(void) { return (vec){0.0f, 0.0f, 0.0f, 0.0f}; }
static inline vec vec_set(float value) { return (vec){value, value, value, value}; }
static inline vec vec_max(vec a, vec b) {
    for (int i = 0; i < VL; i++) a[i] = a[i] > b[i] ? a[i] : b[i];
    return a;
}
static inline vec vec_fma(vec a, vec b, vec c) { return a * b + c; }
static inline vec vec_load_f32(const float *p) {
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void vec_store_f32(float *p, vec v) { memcpy(p, &v, sizeof v); }

static inline float float_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline uint32_t bits_from_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline vec vec_load_bf16(const uint16_t *p) {
    uint16_t half __attribute__((vector_size(8)));
    typedef uint32_t words __attribute__((vector_size(16)));
    memcpy(&half, p, sizeof half);
    return (vec)(__builtin_convertvector(half, words) << 16);
}

/* Half to float without half instructions: the exponent is rebased by a multiplication, which also turns
   half's subnormals into normal floats; only infinity and NaN need a word of their own. */
static inline float float_from_half(uint16_t half) {
    uint32_t magnitude = (uint32_t)(half & 0x7FFFu) << 13;
    float value = float_from_bits(magnitude) * 0x1p112f;
    uint32_t special = (half & 0x7C00u) == 0x7C00u ? magnitude | 0x7F800000u : bits_from_float(value);
    return float_from_bits(special | (uint32_t)(half & 0x8000u) << 16);
}

/* Float to half, to nearest, ties to even. */
static inline uint16_t half_from_float(float value) {
    uint32_t bits = bits_from_float(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) return (uint16_t)(sign | 0x7E00u | (magnitude >> 13 & 0x3FFu));
    if (magnitude >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u); /* 65520 and more round to infinity */
    if (magnitude < 0x38800000u) {                                   /* below 2^-14: a multiple of 2^-24 */
        /* Adding 0.5 leaves exactly the bits worth 2^-24 and more in the mantissa, rounded by the machine. */
        return (uint16_t)(sign | (bits_from_float(float_from_bits(magnitude) + 0.5f) - 0x3F000000u));
    }
    uint32_t odd = magnitude >> 13 & 1u;
    return (uint16_t)(sign | (magnitude - 0x38000000u + 0xFFFu + odd) >> 13);
}

static inline vec vec_load_f16(const uint16_t *p) {
    float lane[VL];
    for (int i = 0; i < VL; i++) lane[i] = float_from_half(p[i]);
    return vec_load_f32(lane);
}
static inline void vec_store_f16(uint16_t *p, vec v) {
    for (int i = 0; i < VL; i++) p[i] = half_from_float(v[i]);
}
static inline void vec_double(vec v, dvec *low, dvec *high) {
    *low = (dvec){v[0], v[1]};
    *high = (dvec){v[2], v[3]};
}

/* p * 2^n for whole n from -126 to 0, and 0 in the lanes where x is below `least`; a NaN stays. */
static inline vec vec_power(vec p, vec n, vec x, float least) {
    for (int i = 0; i < VL; i++) {
        const float whole = n[i] != n[i] ? 0.0f : n[i]; /* what is no number has no place among the integers */
        p[i] = x[i] < least ? 0.0f : p[i] * float_from_bits((uint32_t)((int32_t)whole + 127) << 23);
    }
    return p;
}

/* Over all lanes, in one fixed order. */
static inline float vec_sum(vec v) { return (v[0] + v[2]) + (v[1] + v[3]); }
static inline float vec_most(vec v) {
    const float even = v[0] > v[2] ? v[0] : v[2], odd = v[1] > v[3] ? v[1] : v[3];
    return even > odd ? even : odd;
}

/* The next values of a packed row in the lanes that the bits name, 0 in the others, and a product added in those lanes alone. */
static inline uint32_t vec_bits(const uint8_t *row, int64_t k) { return row[k / 8] >> k % 8 & 15u; }
static inline vec vec_expand(uint32_t bits, vec packed) {
    vec v = vec_zero();
    for (int i = 0, next = 0; i < VL; i++)
        if (bits >> i & 1u) v[i] = packed[next++];
    return v;
}
static inline vec vec_expand_f32(uint32_t bits, const float *packed) { return vec_expand(bits, vec_load_f32(packed)); }
static inline vec vec_expand_bf16(uint32_t bits, const uint16_t *packed) { return vec_expand(bits, vec_load_bf16(packed)); }
static inline vec vec_expand_f16(uint32_t bits, const uint16_t *packed) { return vec_expand(bits, vec_load_f16(packed)); }
static inline vec vec_fma_where(uint32_t bits, vec a, vec b, vec c) {
    vec sum = a * b + c;
    for (int i = 0; i < VL; i++) sum[i] = bits >> i & 1u ? sum[i] : c[i];
    return sum;
}

/* The four sums over lanes, in one fixed order whatever the caller's tile. */
static inline void vec_sum4(vec a, vec b, vec c, vec d, float *out) {
    out[0] = (a[0] + a[2]) + (a[1] + a[3]);
    out[1] = (b[0] + b[2]) + (b[1] + b[3]);
    out[2] = (c[0] + c[2]) + (c[1] + c[3]);
    out[3] = (d[0] + d[2]) + (d[1] + d[3]);
}
#endif
