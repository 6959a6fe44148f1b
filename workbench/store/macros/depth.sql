-- layer_contribution: means over tokens of what each part of a block adds to the residual stream,
--   norm = |added| / |residual it is added to|,  cos = their cosine,  influence = 1 - cos(residual in, residual out).
-- Source: block influence of ShortGPT (Men et al. 2024); relative norms and cosines as in schema.sql.
CREATE OR REPLACE MACRO layer_contribution(run, first := false) AS TABLE
WITH means AS (
    SELECT c.layer, c.part, CAST(sum(c.tokens) AS BIGINT) AS tokens, sum(c.total) / nullif(sum(c.tokens), 0) AS mean
    FROM part_cells(run) AS c
    WHERE first OR NOT c.opening
    GROUP BY c.layer, c.part
)
SELECT m.layer, any_value(m.tokens) FILTER (m.part = 'tokens') AS tokens,
       any_value(m.mean) FILTER (m.part = 'attn_norm') AS attn_norm, any_value(m.mean) FILTER (m.part = 'attn_cos') AS attn_cos,
       any_value(m.mean) FILTER (m.part = 'mlp_norm') AS mlp_norm, any_value(m.mean) FILTER (m.part = 'mlp_cos') AS mlp_cos,
       any_value(m.mean) FILTER (m.part = 'block_norm') AS block_norm,
       any_value(m.mean) FILTER (m.part = 'influence') AS influence
FROM means AS m
GROUP BY m.layer
ORDER BY m.layer;

-- arank_profile: means over heads, steps and runs of the ranks of the attention maps, apart by submatrix and tolerance;
--   share = mean of rank / tokens, which compares maps of different lengths.
-- The order of the layers by rank is that of one tolerance: on the demo model two samples of 128 tokens agree in it (Spearman
-- 0.87 to 0.99 at tolerances of 0.001 to 0.2, single pairs down to 0.6), but tolerances of 0.001 and 0.01 do not (0.66).
-- Source: ARank of gamma-MoD (Luo et al. 2024), the mean over heads of the rank of the attention map.
CREATE OR REPLACE MACRO arank_profile(run) AS TABLE
SELECT a.layer, a.submatrix, a.tolerance, count(*) AS maps, avg(a.tokens) AS tokens, avg(a.rank) AS rank,
       avg(a.rank / a.tokens) AS share, avg(a.stable_rank) AS stable_rank, avg(a.effective_rank) AS effective_rank,
       avg(a.entropy) AS entropy
FROM attention_rank AS a
WHERE a.run IN (SELECT unnest(run_ids(run)))
GROUP BY a.layer, a.submatrix, a.tolerance
ORDER BY a.layer, a.submatrix, a.tolerance;

-- depth_score: where in the network the work is done, for each run: the mean layer, weighted by what each layer does,
--   score = sum_l l x(l) / sum_l x(l),  x the mean over tokens of block influence, block norm, attention norm or MLP norm.
-- Source: depth score of "Do Language Models Use Their Depth Efficiently?" (Csordas, Manning, Potts 2025).
CREATE OR REPLACE MACRO depth_score(run, first := false) AS TABLE
WITH sums AS (
    SELECT c.run, c.layer, c.part, sum(c.total) / nullif(sum(c.tokens), 0) AS mean
    FROM part_cells(run) AS c
    WHERE first OR NOT c.opening
    GROUP BY c.run, c.layer, c.part
), means AS (
    SELECT s.run, s.layer, any_value(s.mean) FILTER (s.part = 'influence') AS influence,
           any_value(s.mean) FILTER (s.part = 'block_norm') AS block_norm,
           any_value(s.mean) FILTER (s.part = 'attn_norm') AS attn_norm,
           any_value(s.mean) FILTER (s.part = 'mlp_norm') AS mlp_norm
    FROM sums AS s
    GROUP BY s.run, s.layer
)
SELECT m.run, count(*) AS layers, sum(m.layer * m.influence) / sum(m.influence) AS influence,
       sum(m.layer * m.block_norm) / sum(m.block_norm) AS block, sum(m.layer * m.attn_norm) / sum(m.attn_norm) AS attn,
       sum(m.layer * m.mlp_norm) / sum(m.mlp_norm) AS mlp
FROM means AS m
GROUP BY m.run
ORDER BY m.run;

-- skip_effect: what later layers do differently when a unit was skipped: other runs (`run`, one or a list) against `base`,
-- on positions recorded in both,
--   block_norm, influence = mean over tokens of (value of the run - value of the base),
--   largest = max over tokens of |block_norm of the run - block_norm of the base| / block_norm of the base,
--   skipped = a depth event other than 'execute' is recorded for that layer of the run.
-- With `most`, over so many tokens' worth of `run` alone (some_runs): a scan of every position is what it takes.
-- Source: skip-effect matrix (layer skipped by layer affected) of Csordas, Manning, Potts 2025, from the relative norms.
CREATE OR REPLACE MACRO skip_effect(base, run, first := false, most := NULL) AS TABLE
WITH before AS (
    SELECT c.position, c.layer, arg_max(c.block_norm, c.step) AS block_norm, arg_max(c.influence, c.step) AS influence
    FROM contribution AS c
    WHERE c.run = base AND (first OR c.position > 0)
    GROUP BY c.position, c.layer
), stepped AS (
    SELECT c.run, min(c.step) < max(c.step) AS several FROM contribution AS c
    WHERE c.run IN (SELECT s.id FROM some_runs(run, most) AS s)
    GROUP BY c.run
), after AS (
    -- Where a position was computed in several steps the last one stands; a run of one step has none of them.
    SELECT c.run, c.position, c.layer, c.block_norm, c.influence
    FROM contribution AS c
    WHERE c.run IN (SELECT s.run FROM stepped AS s WHERE NOT s.several)
    UNION ALL
    SELECT c.run, c.position, c.layer, arg_max(c.block_norm, c.step), arg_max(c.influence, c.step)
    FROM contribution AS c
    WHERE c.run IN (SELECT s.run FROM stepped AS s WHERE s.several)
    GROUP BY c.run, c.position, c.layer
), events AS (
    SELECT DISTINCT d.run, d.layer FROM depth AS d
    WHERE d.run IN (SELECT s.run FROM stepped AS s) AND d.event <> 'execute'
)
SELECT a.run, a.layer, any_value(e.layer) IS NOT NULL AS skipped, count(*) AS tokens,
       avg(CAST(a.block_norm AS DOUBLE) - b.block_norm) AS block_norm,
       avg(CAST(a.influence AS DOUBLE) - b.influence) AS influence,
       max(CASE WHEN b.block_norm > 0 THEN abs(CAST(a.block_norm AS DOUBLE) - b.block_norm) / b.block_norm END) AS largest
FROM after AS a
JOIN before AS b ON b.position = a.position AND b.layer = a.layer
LEFT JOIN events AS e ON e.run = a.run AND e.layer = a.layer
GROUP BY a.run, a.layer
ORDER BY a.run, a.layer;

-- depth_events: how often a unit was skipped, repeated or reused,
--   share = events / tokens of the runs  (above 1 where a unit ran several times).
-- Source: token-wise depth of Mixture-of-Depths (Raposo et al. 2024).
CREATE OR REPLACE MACRO depth_events(run, first := false) AS TABLE
WITH size AS (
    SELECT count(*) AS tokens
    FROM (SELECT DISTINCT t.run, t.position FROM token AS t
          WHERE t.run IN (SELECT unnest(run_ids(run))) AND (first OR t.position > 0)) AS q
)
SELECT d.layer, d.unit, d.event, count(*) AS events, count(*) / any_value(s.tokens) AS share
FROM depth AS d, size AS s
WHERE d.run IN (SELECT unnest(run_ids(run))) AND (first OR d.position > 0)
GROUP BY d.layer, d.unit, d.event
ORDER BY d.layer, d.unit, d.event;

-- step_cost: what the recorded work cost, by layer (NULL is the whole model) and operation,
--   share = seconds / seconds of all rows of that layer,  rate = flops / seconds.
-- Source: accounting of floating-point operations and time as in schema.sql.
CREATE OR REPLACE MACRO step_cost(run) AS TABLE
SELECT c.layer, c.op, c.backend, count(*) AS calls, sum(c.seconds) AS seconds,
       sum(c.seconds) / sum(sum(c.seconds)) OVER (PARTITION BY c.layer) AS share, sum(c.flops) AS flops,
       sum(c.bytes) AS bytes, sum(c.flops) / nullif(sum(c.seconds), 0) AS rate,
       CAST(sum(c.executed) AS BIGINT) AS executed, CAST(sum(c.skipped) AS BIGINT) AS skipped,
       CAST(sum(c.masked) AS BIGINT) AS masked
FROM cost AS c
WHERE c.run IN (SELECT unnest(run_ids(run)))
GROUP BY c.layer, c.op, c.backend
ORDER BY c.layer NULLS FIRST, c.op, c.backend;

-- attention_recall: what masks of attention kept, means over runs and steps by layer, head and pattern,
--   density = mean share of the visible map that was kept,  recall = mean of exp(lse masked - lse),
--   error = mean relative error of the head's output,  gain = recall / density  (1 is what chance gives).
-- Source: recall of block-sparse attention by log-sum-exp, as in MInference (Jiang et al. 2024).
CREATE OR REPLACE MACRO attention_recall(run) AS TABLE
SELECT m.layer, m.head, m.pattern, m.block, count(*) AS maps, avg(m.density) AS density, avg(m.recall) AS recall,
       avg(m.error) AS error, avg(m.recall) / nullif(avg(m.density), 0) AS gain
FROM attention_mask AS m
WHERE m.run IN (SELECT unnest(run_ids(run)))
GROUP BY m.layer, m.head, m.pattern, m.block
ORDER BY m.layer, m.head, m.pattern, m.block;

-- work_left: how much of the work that could be left out was done, by layer and operation,
--   share = executed / (executed + skipped), in the units of the operation (tokens, neurons, blocks, entries),
--   masked = units among the executed whose result an edit threw away: computed and masked, not saved.
-- Source: counted work as in schema.sql.
CREATE OR REPLACE MACRO work_left(run) AS TABLE
SELECT c.layer, c.op, CAST(sum(c.executed) AS BIGINT) AS executed, CAST(sum(c.skipped) AS BIGINT) AS skipped,
       CAST(sum(c.masked) AS BIGINT) AS masked,
       sum(c.executed) / nullif(sum(c.executed) + sum(c.skipped), 0) AS share
FROM cost AS c
WHERE c.run IN (SELECT unnest(run_ids(run))) AND c.executed IS NOT NULL AND c.skipped IS NOT NULL
GROUP BY c.layer, c.op
ORDER BY c.layer NULLS FIRST, c.op;
