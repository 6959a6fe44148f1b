/* What a block does to the residual stream, in one pass over it. Compiled once per instruction set (isa.h). */
#include "isa.h"
#include <math.h>

typedef struct {
    const void *pre, *attn, *mlp; /* [tokens, hidden], contiguous */
    float *out;                   /* [RK_RESIDUAL_ROWS, tokens] */
    int64_t tokens, hidden, dtype, threads;
} rk_residual_call;

/* The order of the fields of the public ResidualStats. */
enum { PRE, ATTN, MID, MLP, CHANGE, ATTN_SHARE, ATTN_COS, MLP_SHARE, MLP_COS, BLOCK_SHARE, INFLUENCE, RK_RESIDUAL_ROWS };

/* Sums over the hidden size: squares of the five vectors, and the three products that the cosines need. */
enum { PP, AA, NN, MM, DD, PA, NM, PD, SUMS };

#define VALUES_PER_THREAD 100000 /* fewer are not worth waking a thread for */

typedef struct {
    dvec part[SUMS];
} rk_sums;

/* Everything in double: squares of floats neither overflow nor vanish there, and the sums of small differences of
   large vectors, which are the interesting ones, keep their digits. */
static inline __attribute__((always_inline)) void add_products(rk_sums *s, dvec p, dvec a, dvec m) {
    const dvec n = p + a, d = a + m; /* the stream between the two, and what the whole block adds */
    s->part[PP] += p * p;
    s->part[AA] += a * a;
    s->part[NN] += n * n;
    s->part[MM] += m * m;
    s->part[DD] += d * d;
    s->part[PA] += p * a;
    s->part[NM] += n * m;
    s->part[PD] += p * d;
}

static inline __attribute__((always_inline)) void add_vectors(rk_sums *s, vec p, vec a, vec m) {
    dvec low[3], high[3];
    vec_double(p, &low[0], &high[0]);
    vec_double(a, &low[1], &high[1]);
    vec_double(m, &low[2], &high[2]);
    add_products(s, low[0], low[1], low[2]);
    add_products(s, high[0], high[1], high[2]);
}

#define SUM_TOKEN(name, type, load)                                                                                  \
    static void name(const rk_residual_call *call, int64_t token, rk_sums *sums) {                                   \
        const int64_t hidden = call->hidden, whole = hidden - hidden % VL;                                           \
        const type *pre = (const type *)call->pre + token * hidden, *attn = (const type *)call->attn + token * hidden; \
        const type *mlp = (const type *)call->mlp + token * hidden;                                                  \
        rk_sums s = {0};                                                                                             \
        for (int64_t i = 0; i < whole; i += VL) add_vectors(&s, load(pre + i), load(attn + i), load(mlp + i));       \
        if (whole < hidden) {                                                                                        \
            type tail[3][VL] = {0};                                                                                  \
            const size_t bytes = (size_t)(hidden - whole) * sizeof(type);                                            \
            memcpy(tail[0], pre + whole, bytes);                                                                     \
            memcpy(tail[1], attn + whole, bytes);                                                                    \
            memcpy(tail[2], mlp + whole, bytes);                                                                     \
            add_vectors(&s, load(tail[0]), load(tail[1]), load(tail[2]));                                            \
        }                                                                                                            \
        *sums = s;                                                                                                   \
    }

SUM_TOKEN(sum_f32, float, vec_load_f32)
SUM_TOKEN(sum_bf16, uint16_t, vec_load_bf16)
SUM_TOKEN(sum_f16, uint16_t, vec_load_f16)

/* A NaN in a norm fails the comparison's opposite and so stays what it is: NaN. */
static double share(double part, double whole) { return whole > 0.0 ? part / whole : NAN; }

static double cosine(double product, double a, double b) {
    const double value = product / a / b;
    return !(a > 0.0 && b > 0.0) ? NAN : value > 1.0 ? 1.0 : value < -1.0 ? -1.0 : value;
}

/* 1 - cos(pre, pre + change) without the cancellation of 1 - cos: with |pre|^2 |change|^2 - (pre . change)^2, which is
   the squared area between the two, 1 - cos = sin^2 / (1 + cos) wherever the angle is not obtuse. */
static double turn(double pp, double dd, double pd) {
    const double post = pp + 2.0 * pd + dd;
    if (!(pp > 0.0 && post > 0.0)) return NAN;
    const double cos = (pp + pd) / sqrt(pp) / sqrt(post), clamped = cos > 1.0 ? 1.0 : cos < -1.0 ? -1.0 : cos;
    if (clamped < 0.0) return 1.0 - clamped;
    const double sin2 = (dd - pd / pp * pd) / post;
    return (sin2 > 0.0 ? sin2 : sin2 <= 0.0 ? 0.0 : NAN) / (1.0 + clamped);
}

static void token_statistics(const rk_residual_call *call, int64_t token) {
    rk_sums sums;
    double sum[SUMS];
    if (call->dtype == RK_F32) sum_f32(call, token, &sums);
    else if (call->dtype == RK_BF16) sum_bf16(call, token, &sums);
    else sum_f16(call, token, &sums);
    for (int i = 0; i < SUMS; i++) {
        sum[i] = 0.0;
        for (int lane = 0; lane < VL / 2; lane++) sum[i] += sums.part[i][lane];
    }
    const double pre = sqrt(sum[PP]), attn = sqrt(sum[AA]), mid = sqrt(sum[NN]), mlp = sqrt(sum[MM]);
    const double change = sqrt(sum[DD]);
    float *out = call->out + token;
    const int64_t row = call->tokens;
    out[PRE * row] = (float)pre;
    out[ATTN * row] = (float)attn;
    out[MID * row] = (float)mid;
    out[MLP * row] = (float)mlp;
    out[CHANGE * row] = (float)change;
    out[ATTN_SHARE * row] = (float)share(attn, pre);
    out[ATTN_COS * row] = (float)cosine(sum[PA], attn, pre);
    out[MLP_SHARE * row] = (float)share(mlp, mid);
    out[MLP_COS * row] = (float)cosine(sum[NM], mlp, mid);
    out[BLOCK_SHARE * row] = (float)share(change, pre);
    out[INFLUENCE * row] = (float)turn(sum[PP], sum[DD], sum[PD]);
}

ENTRY(rk_residual_stats)(const rk_residual_call *call) {
    const int threads = rk_threads(call->tokens * call->hidden, VALUES_PER_THREAD, call->threads);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t token = 0; token < call->tokens; token++) token_statistics(call, token);
    return RK_OK;
}
