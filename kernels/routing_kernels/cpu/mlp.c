/* A gated MLP that reads the weights of active neurons or inputs alone. Compiled once per instruction set (isa.h). */
#include "isa.h"
#include "activation.h"
#include <stdlib.h>

#define PREFETCH_BYTES 512       /* how far ahead a row is asked for */
#define STRETCH 32               /* tokens that go through together and share the weights they read */
#define ROW_CHUNK 64             /* rows whose weights stay near while the stretch's tokens pass over them */
#define COLUMN_BLOCK 1024        /* columns of a sum of rows that several tokens work on at a time; a lone one LONE_COLUMNS */
#define MACS_PER_THREAD 500000   /* less work than this is not worth waking a thread for */

enum rk_mlp_mode { RK_TEAL = 0, RK_CATS = 1, RK_NEURON = 2 };

typedef struct {
    const void *x;         /* [tokens, hidden], contiguous */
    const void *gate, *up; /* [width, hidden]; teal: [hidden, width]; rows contiguous */
    const void *down;      /* [width, outputs], rows contiguous */
    const uint8_t *active; /* [tokens, width], neuron mode alone */
    void *y;               /* [tokens, outputs] */
    int32_t *counts;       /* [2, tokens]: active neurons, inputs read */
    float *energy;         /* [tokens, 2]; NULL: no statistics */
    int64_t tokens, hidden, width, outputs;
    int64_t gate_row, up_row, down_row; /* strides */
    int64_t dtype, act, mode, threads;
    double threshold, input_threshold;
} rk_mlp_call;

/* One list of rows per token, ascending. */
typedef struct {
    int32_t *rows;  /* [STRETCH, most] */
    int64_t *count; /* [STRETCH] */
    int64_t most;
} rk_lists;

typedef struct {
    int64_t first, tokens;
    int64_t hidden_pad, width_pad, outputs_pad;
    float *x, *gate, *up, *h, *y; /* [STRETCH, padded] each */
    rk_lists inputs, neurons, all;
} rk_mlp_stretch;

#define WT float
#define LOAD_W vec_load_f32
#define NAME(x) x##_f32
#include "mlp_rows.h"

#define WT uint16_t
#define LOAD_W vec_load_bf16
#define NAME(x) x##_bf16
#include "mlp_rows.h"

#define WT uint16_t
#define LOAD_W vec_load_f16
#define NAME(x) x##_f16
#include "mlp_rows.h"

/* The part of a token's list that lies in rows [from, to). */
static const int32_t *part_of(const rk_lists *lists, int64_t token, int64_t from, int64_t to, int64_t *n) {
    const int32_t *rows = lists->rows + token * lists->most;
    int64_t edge[2];
    for (int side = 0; side < 2; side++) {
        const int64_t bound = side ? to : from;
        int64_t low = 0, high = lists->count[token];
        while (low < high) {
            const int64_t middle = (low + high) / 2;
            if (rows[middle] < bound) low = middle + 1;
            else high = middle;
        }
        edge[side] = low;
    }
    *n = edge[1] - edge[0];
    return rows + edge[0];
}

/* Rows of a task: a lone token takes long runs, tokens that share weights take chunks that stay near. */
static int64_t chunk_of(const rk_mlp_stretch *s, int64_t rows, int threads) {
    return s->tokens > 1 || threads > 1 ? ROW_CHUNK : rows;
}

/* out[t][row] = w[row] . x[t] for each token's listed rows. */
static void dots(const rk_mlp_call *call, const rk_mlp_stretch *s, const rk_lists *lists, const void *w, int64_t stride,
                 float *out, int threads) {
    const int64_t chunk = chunk_of(s, call->width, threads), tasks = (call->width + chunk - 1) / chunk;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (int64_t task = 0; task < tasks; task++) {
        for (int64_t t = 0; t < s->tokens; t++) {
            int64_t n;
            const int32_t *rows = part_of(lists, t, task * chunk, (task + 1) * chunk, &n);
            const float *x = s->x + t * s->hidden_pad;
            float *found = out + t * s->width_pad;
            if (call->dtype == RK_F32) dots_f32(w, stride, rows, n, x, call->hidden, found);
            else if (call->dtype == RK_BF16) dots_bf16(w, stride, rows, n, x, call->hidden, found);
            else dots_f16(w, stride, rows, n, x, call->hidden, found);
        }
    }
}

/* out[t] = sum over each token's listed rows of value[t][row] * w[row]. */
static void sum_rows(const rk_mlp_call *call, const rk_mlp_stretch *s, const rk_lists *lists, const void *w,
                     int64_t stride, int64_t height, int64_t columns, const float *value, int64_t value_row, float *out,
                     int64_t out_row, int threads) {
    const int64_t block = s->tokens > 1 ? COLUMN_BLOCK : LONE_COLUMNS;
    const int64_t chunk = chunk_of(s, height, 1), tasks = (columns + block - 1) / block;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (int64_t task = 0; task < tasks; task++) {
        const int64_t at = task * block, n = columns - at < block ? columns - at : block;
        for (int64_t t = 0; t < s->tokens; t++)
            memset(out + t * out_row + at, 0, (size_t)(rk_padded(n)) * sizeof(float));
        for (int64_t row = 0; row < height; row += chunk) {
            for (int64_t t = 0; t < s->tokens; t++) {
                int64_t count;
                const int32_t *rows = part_of(lists, t, row, row + chunk, &count);
                const float *v = value + t * value_row;
                float *sum = out + t * out_row + at;
                if (call->dtype == RK_F32) add_rows_f32((const float *)w + at, stride, rows, count, v, n, sum);
                else if (call->dtype == RK_BF16) add_rows_bf16((const uint16_t *)w + at, stride, rows, count, v, n, sum);
                else add_rows_f16((const uint16_t *)w + at, stride, rows, count, v, n, sum);
            }
        }
    }
}

/* Lists where the value's magnitude is above the threshold; what cannot be compared, a NaN, stays. */
static void list_above(rk_lists *lists, int64_t token, const float *value, int64_t n, double threshold) {
    int32_t *rows = lists->rows + token * lists->most;
    const float edge = (float)threshold;
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) {
        rows[count] = (int32_t)i;
        count += !(__builtin_fabsf(value[i]) <= edge);
    }
    lists->count[token] = count;
}

static double total_energy(const float *value, int64_t padded) {
    dvec low, high, sum[2] = {0};
    double total = 0.0;
    for (int64_t i = 0; i < padded; i += VL) {
        vec_double(vec_load_f32(value + i), &low, &high);
        sum[0] += low * low;
        sum[1] += high * high;
    }
    for (int lane = 0; lane < VL / 2; lane++) total += sum[0][lane] + sum[1][lane];
    return total;
}

/* The share of the listed values in the sum of squares; NaN where there is nothing to share. */
static float kept_share(const rk_lists *lists, int64_t token, const float *value, int64_t padded) {
    const int32_t *rows = lists->rows + token * lists->most;
    const int64_t count = lists->count[token];
    double part[4] = {0.0};
    int64_t i = 0;
    for (; i + 4 <= count; i += 4)
        for (int j = 0; j < 4; j++) part[j] += (double)value[rows[i + j]] * value[rows[i + j]];
    for (; i < count; i++) part[0] += (double)value[rows[i]] * value[rows[i]];
    return (float)((part[0] + part[1] + (part[2] + part[3])) / total_energy(value, padded));
}

/* act(gate) * up of the active neurons in h, zeros elsewhere. In CATS the threshold is on act(gate), found in h. */
static void activate(const rk_mlp_call *call, const rk_mlp_stretch *s, int64_t t) {
    const float *gate = s->gate + t * s->width_pad, *up = s->up + t * s->width_pad;
    float *h = s->h + t * s->width_pad;
    if (call->mode == RK_TEAL) {
        rk_gate(call->act, gate, up, h, call->width);
        return;
    }
    const int32_t *rows = s->neurons.rows + t * s->neurons.most;
    for (int64_t i = 0; i < s->neurons.count[t]; i += 64) { /* a short row of active neurons at a time */
        const int64_t n = s->neurons.count[t] - i < 64 ? s->neurons.count[t] - i : 64;
        float g[64], u[64], a[64];
        for (int64_t j = 0; j < n; j++) {
            g[j] = gate[rows[i + j]];
            u[j] = up[rows[i + j]];
        }
        rk_gate(call->act, g, u, a, n);
        for (int64_t j = 0; j < n; j++) h[rows[i + j]] = a[j];
    }
}

static void run(const rk_mlp_call *call, rk_mlp_stretch *s) {
    const int64_t hidden = call->hidden, width = call->width;
    const int threads = rk_threads(s->tokens * hidden * width, MACS_PER_THREAD, call->threads);
    for (int64_t t = 0; t < s->tokens; t++) {
        widen_row(call->dtype, call->x, (s->first + t) * hidden, hidden, s->x + t * s->hidden_pad, s->hidden_pad);
        call->counts[call->tokens + s->first + t] = (int32_t)hidden;
        if (call->energy) call->energy[2 * (s->first + t)] = 1.0f;
    }
    if (call->mode == RK_TEAL) {
        for (int64_t t = 0; t < s->tokens; t++) {
            const float *x = s->x + t * s->hidden_pad;
            list_above(&s->inputs, t, x, hidden, call->input_threshold);
            call->counts[call->tokens + s->first + t] = (int32_t)s->inputs.count[t];
            if (call->energy) call->energy[2 * (s->first + t)] = kept_share(&s->inputs, t, x, s->hidden_pad);
        }
        sum_rows(call, s, &s->inputs, call->gate, call->gate_row, hidden, width, s->x, s->hidden_pad, s->gate,
                 s->width_pad, threads);
        sum_rows(call, s, &s->inputs, call->up, call->up_row, hidden, width, s->x, s->hidden_pad, s->up, s->width_pad,
                 threads);
    } else if (call->mode == RK_CATS) {
        float one[64];
        for (int i = 0; i < 64; i++) one[i] = 1.0f;
        dots(call, s, &s->all, call->gate, call->gate_row, s->gate, threads);
        for (int64_t t = 0; t < s->tokens; t++) {
            float *active = s->h + t * s->width_pad; /* only to choose and to count: h itself comes later */
            for (int64_t i = 0; i < width; i += 64)
                rk_gate(call->act, s->gate + t * s->width_pad + i, one, active + i, width - i < 64 ? width - i : 64);
            memset(active + width, 0, (size_t)(s->width_pad - width) * sizeof(float));
            list_above(&s->neurons, t, active, width, call->threshold);
            if (call->energy)
                call->energy[2 * (s->first + t) + 1] = kept_share(&s->neurons, t, active, s->width_pad);
        }
        dots(call, s, &s->neurons, call->up, call->up_row, s->up, threads);
    } else {
        for (int64_t t = 0; t < s->tokens; t++) {
            const uint8_t *active = call->active + (s->first + t) * width;
            int32_t *rows = s->neurons.rows + t * s->neurons.most;
            int64_t count = 0;
            for (int64_t i = 0; i < width; i++) {
                rows[count] = (int32_t)i;
                count += active[i] != 0;
            }
            s->neurons.count[t] = count;
            if (call->energy) call->energy[2 * (s->first + t) + 1] = NAN;
        }
        dots(call, s, &s->neurons, call->gate, call->gate_row, s->gate, threads);
        dots(call, s, &s->neurons, call->up, call->up_row, s->up, threads);
    }
    for (int64_t t = 0; t < s->tokens; t++) {
        activate(call, s, t);
        if (call->mode == RK_TEAL) {
            float *h = s->h + t * s->width_pad;
            memset(h + width, 0, (size_t)(s->width_pad - width) * sizeof(float));
            list_above(&s->neurons, t, h, width, call->threshold);
            if (call->energy) call->energy[2 * (s->first + t) + 1] = kept_share(&s->neurons, t, h, s->width_pad);
        }
        call->counts[s->first + t] = (int32_t)s->neurons.count[t];
    }
    sum_rows(call, s, &s->neurons, call->down, call->down_row, width, call->outputs, s->h, s->width_pad, s->y,
             s->outputs_pad, threads);
    for (int64_t t = 0; t < s->tokens; t++)
        narrow(call->dtype, s->y + t * s->outputs_pad, call->y, (s->first + t) * call->outputs, call->outputs);
}

ENTRY(rk_sparse_mlp)(const rk_mlp_call *call) {
    rk_mlp_stretch s = {.hidden_pad = rk_padded(call->hidden),
                        .width_pad = rk_padded(call->width),
                        .outputs_pad = rk_padded(call->outputs)};
    const int64_t most = call->tokens < STRETCH ? call->tokens : STRETCH;
    const int64_t floats = most * (s.hidden_pad + 3 * s.width_pad + s.outputs_pad);
    const int64_t listed = most * (call->hidden + 2 * call->width);
    const size_t bytes = (size_t)floats * sizeof(float) + (size_t)listed * sizeof(int32_t);
    void *block = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    int64_t counts[3][STRETCH];
    if (!block) return RK_NO_MEMORY;
    s.x = block;
    s.gate = s.x + most * s.hidden_pad;
    s.up = s.gate + most * s.width_pad;
    s.h = s.up + most * s.width_pad;
    s.y = s.h + most * s.width_pad;
    int32_t *rows = (int32_t *)(s.y + most * s.outputs_pad);
    s.inputs = (rk_lists){rows, counts[0], call->hidden};
    s.neurons = (rk_lists){rows + most * call->hidden, counts[1], call->width};
    s.all = (rk_lists){rows + most * (call->hidden + call->width), counts[2], call->width};
    for (int64_t t = 0; t < most && call->mode == RK_CATS; t++) {
        for (int64_t i = 0; i < call->width; i++) s.all.rows[t * call->width + i] = (int32_t)i;
        s.all.count[t] = call->width;
    }
    for (s.first = 0; s.first < call->tokens; s.first += most) {
        s.tokens = call->tokens - s.first < most ? call->tokens - s.first : most;
        run(call, &s);
    }
    free(block);
    return RK_OK;
}
