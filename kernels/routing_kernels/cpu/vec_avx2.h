/* Vectors of 8 floats for x86 with AVX2, FMA and F16C. */
#ifndef RK_VEC_H
#define RK_VEC_H
#include <immintrin.h>
#include <stdint.h>

typedef __m256 vec;
typedef __m256d dvec;
#define VL 8
/* Rows that a lone token reads at a time. Of two bytes: one stream, which the prefetchers follow best, summed in chains of
   which several run side by side. Of four bytes eight rows asked for ahead are as fast, and faster beside other work. */
#define LONE_ROWS (sizeof(WT) == 2 ? 1 : 8)
#define DOT_STRETCH (sizeof(WT) == 2 ? 64 : (int64_t)1 << 40) /* of a row summed in one chain */
#define ASK_SOON 1        /* rows that several tokens read next are asked for, in their order */
#define LONE_COLUMNS 4096 /* of a sum of rows that a lone token works on at a time */
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

/* The next values of a packed row in the lanes that the bits name, 0 in the others, and a product added in those lanes alone.
   The places come from tables: the bits' own instructions (pdep) take some twenty cycles before Zen 3. */
#define RK_KEPT(b, j, place) ((b) >> (j) & 1 ? (place) : 0x80)
#define RK_RANK(b, j) __builtin_popcount((b) & ((1 << (j)) - 1))
#define RK_LANE(b, j) RK_KEPT(b, j, RK_RANK(b, j))
#define RK_HALF(b, j) RK_KEPT(b, j, 2 * RK_RANK(b, j)), RK_KEPT(b, j, 2 * RK_RANK(b, j) + 1)
#define RK_8(of, b) {of(b, 0), of(b, 1), of(b, 2), of(b, 3), of(b, 4), of(b, 5), of(b, 6), of(b, 7)}
#define RK_32(of, b) RK_8(of, b), RK_8(of, b + 1), RK_8(of, b + 2), RK_8(of, b + 3)
#define RK_128(of, b) RK_32(of, b), RK_32(of, b + 4), RK_32(of, b + 8), RK_32(of, b + 12)
#define RK_512(of, b) RK_128(of, b), RK_128(of, b + 16), RK_128(of, b + 32), RK_128(of, b + 48)
#define RK_TABLE(of) {RK_512(of, 0), RK_512(of, 64), RK_512(of, 128), RK_512(of, 192)}
/* Of each lane, the place of its value among those packed; the highest bit where there is none. */
static const uint8_t vec_lanes[256][8] = RK_TABLE(RK_LANE);
static const _Alignas(16) uint8_t vec_halves[256][16] = RK_TABLE(RK_HALF); /* and of its two bytes */

static inline uint32_t vec_bits(const uint8_t *row, int64_t k) { return row[k / 8]; }
static inline vec vec_expand_f32(uint32_t bits, const float *packed) {
    const __m256i from = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)vec_lanes[bits]));
    const __m256 placed = _mm256_permutevar8x32_ps(_mm256_loadu_ps(packed), from);
    return _mm256_blendv_ps(placed, _mm256_setzero_ps(), _mm256_castsi256_ps(from));
}
static inline __m128i vec_expand_halves(uint32_t bits, const uint16_t *packed) {
    return _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)packed), _mm_load_si128((const __m128i *)vec_halves[bits]));
}
static inline vec vec_expand_bf16(uint32_t bits, const uint16_t *packed) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(vec_expand_halves(bits, packed)), 16));
}
static inline vec vec_expand_f16(uint32_t bits, const uint16_t *packed) {
    return _mm256_cvtph_ps(vec_expand_halves(bits, packed));
}
static inline vec vec_fma_where(uint32_t bits, vec a, vec b, vec c) {
    const __m256i from = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)vec_lanes[bits]));
    return _mm256_blendv_ps(_mm256_fmadd_ps(a, b, c), c, _mm256_castsi256_ps(from));
}

/* The four sums over lanes, in one fixed order whatever the caller's tile. */
static inline void vec_sum4(vec a, vec b, vec c, vec d, float *out) {
    __m256 all = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d)); /* a b c d in each lane of 4 */
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
}
#endif
