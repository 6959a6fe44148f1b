/* Vectors of 8 floats for x86 with AVX2, FMA and F16C. */
#ifndef RK_VEC_H
#define RK_VEC_H
#include <immintrin.h>
#include <stdint.h>

typedef __m256 vec;
typedef __m256d dvec;
#define VL 8
#define TILE_TOKENS 3 /* 4 rows x 3 tokens = 12 sums, 3 token vectors and 1 weight vector of the 16 registers */

static inline vec vec_zero(void) { return _mm256_setzero_ps(); }
static inline vec vec_set(float value) { return _mm256_set1_ps(value); }
static inline vec vec_max(vec a, vec b) { return _mm256_max_ps(a, b); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline vec vec_load_f32(const float *p) { return _mm256_loadu_ps(p); }
static inline vec vec_load_bf16(const uint16_t *p) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
static inline vec vec_load_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
static inline void vec_store_f32(float *p, vec v) { _mm256_storeu_ps(p, v); }
static inline void vec_store_f16(uint16_t *p, vec v) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline void vec_double(vec v, dvec *low, dvec *high) {
    *low = _mm256_cvtps_pd(_mm256_castps256_ps128(v));
    *high = _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
}

/* p * 2^n for whole n from -126 to 0, and 0 in the lanes where x is below `least`; a NaN stays. */
static inline vec vec_power(vec p, vec n, vec x, float least) {
    const __m256i bits = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    const __m256 kept = _mm256_cmp_ps(x, _mm256_set1_ps(least), _CMP_NLT_UQ);
    return _mm256_and_ps(kept, _mm256_mul_ps(p, _mm256_castsi256_ps(bits)));
}

/* Over all lanes, in one fixed order. */
static inline float vec_sum(vec v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
static inline float vec_most(vec v) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

/* The next values of a packed row in the lanes that the bits name, and a product added in those lanes alone. */
static inline uint32_t vec_bits(const uint8_t *row, int64_t k) { return row[k / 8]; }
static inline uint64_t vec_bytes(uint32_t bits) { return _pdep_u64(bits, 0x0101010101010101u) * 0xFFu; }
static inline vec vec_expand(uint32_t bits, vec packed) {
    uint64_t from = _pdep_u64(0x0706050403020100u, vec_bytes(bits));
    return _mm256_permutevar8x32_ps(packed, _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)from)));
}
static inline vec vec_fma_where(uint32_t bits, vec a, vec b, vec c) {
    __m256i mask = _mm256_cvtepi8_epi32(_mm_cvtsi64_si128((int64_t)vec_bytes(bits)));
    return _mm256_blendv_ps(c, _mm256_fmadd_ps(a, b, c), _mm256_castsi256_ps(mask));
}

/* The four sums over lanes, in one fixed order whatever the caller's tile. */
static inline void vec_sum4(vec a, vec b, vec c, vec d, float *out) {
    __m256 all = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d)); /* a b c d in each lane of 4 */
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
}
#endif
