/* Products with a weight matrix of which only some entries are kept: a bit for each, and the kept ones packed. Compiled
   once per instruction set (isa.h). */
#include "isa.h"
#include <stdlib.h>

#define STRETCH 64             /* tokens whose floats are held at a time */
#define ROW_BLOCK 32           /* rows of one task */
#define TOKENS 4               /* tokens that share the unpacking of a row */
#define MACS_PER_THREAD 500000 /* less work than this is not worth waking a thread for */

typedef struct {
    const void *x;        /* [tokens, columns], contiguous */
    const void *values;   /* [held]: the kept entries row by row, and RK_PAD more that may be read */
    const uint8_t *bits;  /* [rows, bits_row]: bit k of a row, lowest first, is set where column k is kept */
    const int64_t *start; /* [rows + 1] where each row's values begin */
    void *y;              /* [tokens, rows] */
    int64_t tokens, rows, columns, bits_row, held, dtype, threads;
    int64_t checked; /* the rows, bits and values are known to fit together */
} rk_masked_call;

/* out[t][r] for four rows and `tokens` tokens. A lane adds its columns in ascending order and the lanes are added in one
   fixed order, so a token's result does not depend on the tokens beside it. What is not kept is 0; its product with a token
   that is not finite would be NaN, so those are told apart (`careful`); with others adding 0 changes no bit. `ahead` is where
   the next four rows' values begin: four rows are four short streams, which the processor's own prefetcher hardly sees
   through, so that each is asked for while the rows before it are worked on. */
#define TILE(name, type, expand)                                                                                   \
    static inline __attribute__((always_inline)) void name(const int tokens, const int careful, int64_t columns,    \
                                                           const type *const *value, const uint8_t *const *bits,    \
                                                           int64_t ahead, const float *const *x, float *out) {      \
        vec sum[4 * TOKENS], lane[TOKENS];                                                                          \
        const type *at[4];                                                                                          \
        for (int r = 0; r < 4; r++) at[r] = value[r];                                                               \
        for (int i = 0; i < 4 * tokens; i++) sum[i] = vec_zero();                                                   \
        for (int64_t line = 0; line < columns; line += 64 / (int64_t)sizeof(type)) {                                \
            const int64_t left = columns - line, most = 64 / (int64_t)sizeof(type);                                 \
            for (int r = 0; r < 4; r++) __builtin_prefetch(at[r] + ahead, 0, 3);                                    \
            for (int64_t k = line; k < line + (left < most ? left : most); k += VL) {                               \
                for (int t = 0; t < tokens; t++) lane[t] = vec_load_f32(x[t] + k);                                  \
                for (int r = 0; r < 4; r++) {                                                                       \
                    const uint32_t kept = vec_bits(bits[r], k);                                                     \
                    const vec weight = expand(kept, at[r]);                                                         \
                    at[r] += __builtin_popcount(kept);                                                              \
                    for (int t = 0; t < tokens; t++) {                                                              \
                        vec *s = &sum[r * tokens + t];                                                              \
                        *s = careful ? vec_fma_where(kept, weight, lane[t], *s) : vec_fma(weight, lane[t], *s);     \
                    }                                                                                               \
                }                                                                                                   \
            }                                                                                                       \
        }                                                                                                           \
        for (int t = 0; t < tokens; t++)                                                                            \
            vec_sum4(sum[t], sum[tokens + t], sum[2 * tokens + t], sum[3 * tokens + t], out + t * 4);               \
    }                                                                                                               \
    static void name##_rows(const rk_masked_call *call, int64_t first, int64_t last, int64_t tokens, int careful,   \
                            const float *const *x, float *out) {                                                    \
        const type *value[4];                                                                                       \
        const uint8_t *bits[4];                                                                                     \
        for (int r = 0; r < 4; r++) { /* past the last row, the last row again: its sums are not kept */            \
            const int64_t row = first + r < last ? first + r : last - 1;                                            \
            value[r] = (const type *)call->values + call->start[row];                                               \
            bits[r] = call->bits + row * call->bits_row;                                                            \
        }                                                                                                           \
        const int64_t ahead = call->start[first + 4 < last ? first + 4 : last] - call->start[first];                \
        if (careful && tokens == 1) name(1, 1, call->columns, value, bits, ahead, x, out);                          \
        else if (careful) name(TOKENS, 1, call->columns, value, bits, ahead, x, out);                               \
        else if (tokens == 1) name(1, 0, call->columns, value, bits, ahead, x, out);                                \
        else name(TOKENS, 0, call->columns, value, bits, ahead, x, out);                                            \
    }

TILE(tile_f32, float, vec_expand_f32)
TILE(tile_bf16, uint16_t, vec_expand_bf16)
TILE(tile_f16, uint16_t, vec_expand_f16)

/* Whether a row's values lie among those held and its bits name as many: what was altered by hand would read beyond. */
static int fits(const rk_masked_call *call, int64_t row) {
    const uint8_t *bits = call->bits + row * call->bits_row;
    const int64_t first = call->start[row], end = call->start[row + 1];
    int64_t kept = 0, at = 0;
    if (first < 0 || end < first || end + RK_PAD > call->held) return 0;
    for (; at + 8 <= call->bits_row; at += 8) {
        uint64_t word;
        memcpy(&word, bits + at, sizeof word);
        kept += __builtin_popcountll(word);
    }
    for (; at < call->bits_row; at++) kept += __builtin_popcount(bits[at]);
    return kept == end - first;
}

static int all_finite(const float *x, int64_t n) {
    uint32_t endless = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        endless |= (bits & 0x7F800000u) == 0x7F800000u;
    }
    return !endless;
}

static void rows_of(const rk_masked_call *call, int64_t first, int64_t last, const float *x, int64_t x_row,
                    int64_t tokens, int careful, int64_t columns, float *y) {
    for (int64_t row = first; row < last; row += 4) {
        for (int64_t t = 0; t < tokens; t += TOKENS) {
            const int64_t left = tokens - t, group = tokens == 1 ? 1 : TOKENS;
            const float *lane[TOKENS]; /* past the last token, the last token again */
            float out[TOKENS * 4];
            for (int64_t i = 0; i < TOKENS; i++) lane[i] = x + (i < left ? t + i : tokens - 1) * x_row;
            if (call->dtype == RK_F32) tile_f32_rows(call, row, last, group, careful, lane, out);
            else if (call->dtype == RK_BF16) tile_bf16_rows(call, row, last, group, careful, lane, out);
            else tile_f16_rows(call, row, last, group, careful, lane, out);
            for (int64_t i = 0; i < group && i < left; i++)
                for (int64_t r = 0; r < 4 && row + r < last; r++) y[(t + i) * columns + row + r] = out[i * 4 + r];
        }
    }
}

ENTRY(rk_masked_matmul)(const rk_masked_call *call) {
    if (call->start[0] != 0 || call->start[call->rows] + RK_PAD != call->held) return RK_BAD_INDEX;
    const int64_t most = call->tokens < STRETCH ? call->tokens : STRETCH, x_row = rk_padded(call->columns);
    const size_t bytes = (size_t)(most * (x_row + rk_padded(call->rows))) * sizeof(float);
    float *x = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    if (!x) return RK_NO_MEMORY;
    float *y = x + most * x_row;
    for (int64_t first = 0; first < call->tokens; first += most) {
        const int64_t tokens = call->tokens - first < most ? call->tokens - first : most;
        const int threads = rk_threads(tokens * call->start[call->rows], MACS_PER_THREAD, call->threads);
        for (int64_t t = 0; t < tokens; t++)
            widen_row(call->dtype, call->x, (first + t) * call->columns, call->columns, x + t * x_row, x_row);
        const int careful = !all_finite(x, tokens * x_row);
        int bad = 0;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1) reduction(| : bad)
        for (int64_t row = 0; row < call->rows; row += ROW_BLOCK) {
            const int64_t last = row + ROW_BLOCK < call->rows ? row + ROW_BLOCK : call->rows;
            int good = 1;
            for (int64_t r = row; r < last && !call->checked; r++) good &= fits(call, r);
            if (good) rows_of(call, row, last, x, x_row, tokens, careful, call->rows, y);
            else bad = 1;
        }
        if (bad) {
            free(x);
            return RK_BAD_INDEX;
        }
        for (int64_t t = 0; t < tokens; t++)
            narrow(call->dtype, y + t * call->rows, call->y, (first + t) * call->rows, call->rows);
    }
    free(x);
    return RK_OK;
}
