/* Rows picked out of a matrix, and added back into one. Compiled once per instruction set (isa.h). */
#include "isa.h"
#include <math.h>
#include <stdlib.h>

#define COLUMNS 256              /* of a target row worked on at a time */
#define VALUES_PER_THREAD 200000 /* fewer are not worth waking a thread for */

typedef struct {
    const void *x;      /* gather: [height, width]; scatter: [count, width]; contiguous */
    const void *base;   /* scatter alone: [height, width] */
    const int64_t *ids; /* [count] */
    const float *weights; /* scatter alone: [count], or NULL for ones */
    void *y;            /* gather: [count, width]; scatter: [height, width] */
    float *norms;       /* [count]; NULL: no statistics */
    int64_t *dropped;   /* one number */
    int64_t height, count, width, dtype, threads;
} rk_rows_call;

static int64_t size_of(const rk_rows_call *call) { return call->dtype == RK_F32 ? 4 : 2; }

static int named(const rk_rows_call *call, int64_t i) { return call->ids[i] >= 0 && call->ids[i] < call->height; }

static void count_dropped(const rk_rows_call *call) {
    *call->dropped = 0;
    for (int64_t i = 0; i < call->count; i++) *call->dropped += !named(call, i);
}

static double row_norm(const rk_rows_call *call, int64_t row) {
    double total = 0.0;
    dvec low, high, sum[2] = {0};
    for (int64_t at = 0; at < call->width; at += COLUMNS) {
        const int64_t n = call->width - at < COLUMNS ? call->width - at : COLUMNS, padded = rk_padded(n);
        _Alignas(64) float wide[COLUMNS];
        const float *value = wide;
        if (call->dtype == RK_F32 && n == padded) value = (const float *)call->x + row * call->width + at;
        else widen_row(call->dtype, call->x, row * call->width + at, n, wide, padded);
        for (int64_t i = 0; i < padded; i += VL) {
            vec_double(vec_load_f32(value + i), &low, &high);
            sum[0] += low * low;
            sum[1] += high * high;
        }
    }
    for (int lane = 0; lane < VL / 2; lane++) total += sum[0][lane] + sum[1][lane];
    return sqrt(total);
}

ENTRY(rk_gather_rows)(const rk_rows_call *call) {
    const int64_t bytes = call->width * size_of(call);
    const int threads = rk_threads(call->count * call->width, VALUES_PER_THREAD, call->threads);
    count_dropped(call);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < call->count; i++) {
        char *y = (char *)call->y + i * bytes;
        if (named(call, i)) memcpy(y, (const char *)call->x + call->ids[i] * bytes, (size_t)bytes);
        else memset(y, 0, (size_t)bytes);
        if (call->norms) call->norms[i] = named(call, i) ? (float)row_norm(call, call->ids[i]) : 0.0f;
    }
    return RK_OK;
}

/* The same for floats that need no widening: what one row adds is added where it lies. Returns the columns done. */
static int64_t add_floats(const rk_rows_call *call, int64_t target, const int64_t *source, int64_t n_sources) {
    const int64_t whole = call->width - call->width % VL;
    const float *from = (const float *)call->base + target * call->width;
    float *to = (float *)call->y + target * call->width;
    for (int64_t j = 0; j < n_sources; j++, from = to) {
        const vec weight = vec_set(call->weights ? call->weights[source[j]] : 1.0f);
        const float *row = (const float *)call->x + source[j] * call->width;
        for (int64_t i = 0; i < whole; i += VL)
            vec_store_f32(to + i, vec_fma(weight, vec_load_f32(row + i), vec_load_f32(from + i)));
    }
    return whole;
}

/* One target row: its base, then the rows that name it, one after the other in the order given. */
static void add_into(const rk_rows_call *call, int64_t target, const int64_t *source, int64_t n_sources) {
    const int64_t bytes = call->width * size_of(call);
    if (n_sources == 0) { /* nobody was sent through the block: the row stays */
        memcpy((char *)call->y + target * bytes, (const char *)call->base + target * bytes, (size_t)bytes);
        return;
    }
    for (int64_t at = call->dtype == RK_F32 ? add_floats(call, target, source, n_sources) : 0; at < call->width; at += COLUMNS) {
        const int64_t n = call->width - at < COLUMNS ? call->width - at : COLUMNS, padded = rk_padded(n);
        _Alignas(64) float sum[COLUMNS], value[COLUMNS];
        widen_row(call->dtype, call->base, target * call->width + at, n, sum, padded);
        for (int64_t j = 0; j < n_sources; j++) {
            const vec weight = vec_set(call->weights ? call->weights[source[j]] : 1.0f);
            widen_row(call->dtype, call->x, source[j] * call->width + at, n, value, padded);
            for (int64_t i = 0; i < padded; i += VL)
                vec_store_f32(sum + i, vec_fma(weight, vec_load_f32(value + i), vec_load_f32(sum + i)));
        }
        narrow(call->dtype, sum, call->y, target * call->width + at, n);
    }
}

ENTRY(rk_scatter_add_rows)(const rk_rows_call *call) {
    const int threads = rk_threads((call->height + call->count) * call->width, VALUES_PER_THREAD, call->threads);
    int64_t *begin = malloc((size_t)(call->height + 2 + call->count) * sizeof *begin);
    if (!begin) return RK_NO_MEMORY;
    int64_t *source = begin + call->height + 2;
    memset(begin, 0, (size_t)(call->height + 2) * sizeof *begin);
    count_dropped(call);
    /* Sorted by target, keeping their order: begin is shifted by two while counting, by one while placing. */
    for (int64_t i = 0; i < call->count; i++)
        if (named(call, i)) begin[call->ids[i] + 2]++;
    for (int64_t t = 0; t < call->height; t++) begin[t + 2] += begin[t + 1];
    for (int64_t i = 0; i < call->count; i++)
        if (named(call, i)) source[begin[call->ids[i] + 1]++] = i;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(static)
        for (int64_t t = 0; t < call->height; t++) add_into(call, t, source + begin[t], begin[t + 1] - begin[t]);
        if (call->norms) {
#pragma omp for schedule(static)
            for (int64_t i = 0; i < call->count; i++) {
                const double weight = call->weights ? fabs((double)call->weights[i]) : 1.0;
                call->norms[i] = named(call, i) ? (float)(weight * row_norm(call, i)) : 0.0f;
            }
        }
    }
    free(begin);
    return RK_OK;
}
