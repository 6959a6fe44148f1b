/* Vectors of 16 floats for x86 with AVX-512 (F, BW, DQ, VL). */
#ifndef RK_VEC_H
#define RK_VEC_H
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

typedef __m512 vec;
typedef __m512d dvec;
#define VL 16
#define LONE_ROWS 8                    /* rows that a lone token reads at a time */
#define DOT_STRETCH ((int64_t)1 << 40) /* of a row summed in one chain: all of it */
#define ASK_SOON 0                     /* rows that several tokens read next are not asked for */
#define LONE_COLUMNS 1024              /* of a sum of rows that a lone token works on at a time */
#define TILE_TOKENS 6 /* 4 rows x 6 tokens = 24 sums, 6 token vectors and 1 weight vector of the 32 registers */

static inline vec vec_zero(void) { return _mm512_setzero_ps(); }
static inline vec vec_set(float value) { return _mm512_set1_ps(value); }
static inline vec vec_max(vec a, vec b) { return _mm512_max_ps(a, b); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline vec vec_load_f32(const float *p) { return _mm512_loadu_ps(p); }
static inline vec vec_load_bf16(const uint16_t *p) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
static inline vec vec_load_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline void vec_store_f32(float *p, vec v) { _mm512_storeu_ps(p, v); }
static inline void vec_store_f16(uint16_t *p, vec v) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline void vec_double(vec v, dvec *low, dvec *high) {
    *low = _mm512_cvtps_pd(_mm512_castps512_ps256(v));
    *high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
}

/* p * 2^n for whole n, and 0 in the lanes where x is below `least`; a NaN stays. */
static inline vec vec_power(vec p, vec n, vec x, float least) {
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(least), _CMP_NLT_UQ), p, n);
}

/* Over all lanes, in one fixed order. */
static inline float vec_sum(vec v) { return _mm512_reduce_add_ps(v); }
static inline float vec_most(vec v) { return _mm512_reduce_max_ps(v); }

/* The next values of a packed row in the lanes that the bits name, 0 in the others, and a product added in those lanes alone. */
static inline uint32_t vec_bits(const uint8_t *row, int64_t k) {
    uint16_t bits;
    memcpy(&bits, row + k / 8, sizeof bits);
    return bits;
}
static inline vec vec_expand(uint32_t bits, vec packed) { return _mm512_maskz_expand_ps((__mmask16)bits, packed); }
static inline vec vec_expand_f32(uint32_t bits, const float *packed) { return vec_expand(bits, vec_load_f32(packed)); }
static inline vec vec_expand_bf16(uint32_t bits, const uint16_t *packed) { return vec_expand(bits, vec_load_bf16(packed)); }
static inline vec vec_expand_f16(uint32_t bits, const uint16_t *packed) { return vec_expand(bits, vec_load_f16(packed)); }
static inline vec vec_fma_where(uint32_t bits, vec a, vec b, vec c) {
    return _mm512_mask3_fmadd_ps(a, b, c, (__mmask16)bits);
}

/* The four sums over lanes, in one fixed order whatever the caller's tile. */
static inline void vec_sum4(vec a, vec b, vec c, vec d, float *out) {
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); /* a b a b in each lane of 4 */
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    __m512 all = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE)); /* a b c d */
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}
#endif
