/* The log-probability of one entry of each row under the softmax of that row. Compiled once per instruction set (isa.h). */
#include "exponential.h"
#include "isa.h"
#include <math.h>

typedef struct {
    const float *logits;   /* [count, width], contiguous */
    const int64_t *tokens; /* [count]: which entry of each row */
    float *out;            /* [count] */
    int64_t count, width, threads;
} rk_logprob_call;

#define VALUES_PER_THREAD 200000 /* fewer are not worth waking a thread for */
#define CHAINS 4                 /* vectors worked on side by side */
#define STRETCH (CHAINS * VL * 64) /* values summed in floats; stretches are added up in double */

/* The last values of a row, with what weighs nothing behind them. */
static inline vec last_values(const float *row, int64_t whole, int64_t width) {
    float padded[VL];
    for (int lane = 0; lane < VL; lane++) padded[lane] = whole + lane < width ? row[whole + lane] : -INFINITY;
    return vec_load_f32(padded);
}

static float largest(const float *row, int64_t width) {
    const int64_t whole = width - width % VL;
    vec most[CHAINS];
    for (int chain = 0; chain < CHAINS; chain++) most[chain] = vec_set(-INFINITY);
    int64_t j = 0;
    for (; j + CHAINS * VL <= whole; j += CHAINS * VL)
        for (int chain = 0; chain < CHAINS; chain++)
            most[chain] = vec_max(most[chain], vec_load_f32(row + j + chain * VL));
    for (; j < whole; j += VL) most[0] = vec_max(most[0], vec_load_f32(row + j));
    most[0] = vec_max(most[0], last_values(row, whole, width));
    return vec_most(vec_max(vec_max(most[0], most[1]), vec_max(most[2], most[3])));
}

/* Sum over the row of e^(x - most), where most is the largest x; NaN where some x is. */
static double weight_of(const float *row, int64_t width, float most) {
    const int64_t whole = width - width % VL;
    const vec base = vec_set(most);
    double total = 0.0;
    int64_t j = 0;
    while (j + CHAINS * VL <= whole) {
        const int64_t end = whole - j > STRETCH ? j + STRETCH : whole;
        vec sum[CHAINS] = {0};
        for (; j + CHAINS * VL <= end; j += CHAINS * VL)
            for (int chain = 0; chain < CHAINS; chain++)
                sum[chain] += exponential(vec_load_f32(row + j + chain * VL) - base);
        total += (double)vec_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
    }
    vec sum = exponential(last_values(row, whole, width) - base);
    for (; j < whole; j += VL) sum += exponential(vec_load_f32(row + j) - base);
    return total + (double)vec_sum(sum);
}

/* Of a row that has an infinity or nothing but numbers that are not: as log(sum of e^x) has it. */
static float unbounded(const float *row, int64_t width, float x) {
    float sum = 0.0f; /* infinite or NaN if one of them is; those that weigh nothing stay out */
    for (int64_t j = 0; j < width; j++) sum += row[j] == -INFINITY ? 0.0f : row[j];
    return isnan(sum) || x == INFINITY || sum != INFINITY ? NAN : -INFINITY;
}

ENTRY(rk_token_logprob)(const rk_logprob_call *call) {
    const int64_t width = call->width;
    const int threads = rk_threads(call->count * width, VALUES_PER_THREAD, call->threads);
    for (int64_t i = 0; i < call->count; i++)
        if (call->tokens[i] < 0 || call->tokens[i] >= width) return RK_BAD_INDEX;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < call->count; i++) {
        const float *row = call->logits + i * width, x = row[call->tokens[i]], most = largest(row, width);
        call->out[i] = isfinite(most) ? (float)((double)x - (double)most - log(weight_of(row, width, most)))
                                      : unbounded(row, width, x);
    }
    return RK_OK;
}
