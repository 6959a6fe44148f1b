-- flips_aligned: choices that differ, as SETS of experts, between two runs (one id each) at aligned positions:
-- base_positions[i] of the base stands for run_positions[i] of the new run.  The cause is the first that holds:
--   'edit'      the choice was edited in either of the runs,
--   'tie'       the k-th and (k+1)-th score were equal in either,
--   'upstream'  otherwise: the router saw a different hidden state.
-- A pair recorded in one of the runs only is no flip. Where a position was computed in several steps the last one stands.
-- Source: divergent decisions of a routing diff, told apart by the margin and the edits that were recorded.
CREATE OR REPLACE MACRO flips_aligned(base_run, new_run, base_positions, run_positions) AS TABLE
WITH pairs AS (
    SELECT unnest(CAST(base_positions AS INTEGER[])) AS base_position, unnest(CAST(run_positions AS INTEGER[])) AS position,
           unnest(range(len(base_positions))) AS pair
), words AS MATERIALIZED (
    SELECT true AS of_base, w.position, w.layer, w.step, w.word, w.chosen FROM set_cells(base_run) AS w
    UNION ALL
    SELECT false, w.position, w.layer, w.step, w.word, w.chosen FROM set_cells(new_run) AS w
), again AS (
    SELECT w.of_base, w.position, w.layer, max(w.step) AS step
    FROM words AS w
    GROUP BY w.of_base, w.position, w.layer
    HAVING min(w.step) < max(w.step)
), latest AS (
    SELECT w.of_base, w.position, w.layer, w.word, w.chosen
    FROM words AS w LEFT JOIN again AS g ON g.of_base = w.of_base AND g.position = w.position AND g.layer = w.layer
    WHERE g.step IS NULL OR w.step = g.step
), different AS (
    -- Equal words of two sets cancel out. Only of sets that differ the experts are listed.
    SELECT DISTINCT q.pair, q.layer
    FROM (
        SELECT p.pair, t.layer, t.word, t.chosen
        FROM latest AS t JOIN pairs AS p ON p.base_position = t.position WHERE t.of_base
        UNION ALL
        SELECT p.pair, t.layer, t.word, t.chosen
        FROM latest AS t JOIN pairs AS p ON p.position = t.position WHERE NOT t.of_base
    ) AS q
    GROUP BY q.pair, q.layer, q.word
    HAVING bit_xor(q.chosen) <> 0
), wanted AS MATERIALIZED (
    SELECT d.pair, d.layer, p.base_position, p.position FROM different AS d JOIN pairs AS p ON p.pair = d.pair
), left_side AS (
    -- Sorting numbers that hold rank, slot and expert is several times cheaper than a list with ORDER BY.
    SELECT w.pair, r.layer, r.step,
           list_sort(list(CAST(r.rank AS BIGINT) << 24 | CAST(r.slot AS BIGINT) << 16 | r.expert)) AS packed
    FROM routing AS r JOIN wanted AS w ON w.base_position = r.position AND w.layer = r.layer
    WHERE r.run = base_run GROUP BY w.pair, r.layer, r.step
    QUALIFY r.step = max(r.step) OVER (PARTITION BY w.pair, r.layer)
), right_side AS (
    SELECT w.pair, r.layer, r.step,
           list_sort(list(CAST(r.rank AS BIGINT) << 24 | CAST(r.slot AS BIGINT) << 16 | r.expert)) AS packed
    FROM routing AS r JOIN wanted AS w ON w.position = r.position AND w.layer = r.layer
    WHERE r.run = new_run GROUP BY w.pair, r.layer, r.step
    QUALIFY r.step = max(r.step) OVER (PARTITION BY w.pair, r.layer)
), sides AS (
    SELECT w.position, w.base_position, w.layer, a.step AS base_step, b.step,
           list_transform(a.packed, lambda x: CAST(x & 65535 AS USMALLINT)) AS base_experts,
           list_transform(b.packed, lambda x: CAST(x & 65535 AS USMALLINT)) AS run_experts
    FROM wanted AS w
    JOIN left_side AS a ON a.pair = w.pair AND a.layer = w.layer
    JOIN right_side AS b ON b.pair = w.pair AND b.layer = w.layer
)
SELECT s.position, s.layer, s.base_experts, s.run_experts, m.margin AS base_margin, n.margin AS run_margin,
       CASE WHEN coalesce(m.edited, false) OR coalesce(n.edited, false) THEN 'edit'
            WHEN coalesce(m.tie, false) OR coalesce(n.tie, false) THEN 'tie'
            ELSE 'upstream' END AS cause,
       s.step, s.base_position
FROM sides AS s
LEFT JOIN router AS m ON m.run = base_run AND m.position = s.base_position AND m.layer = s.layer AND m.step = s.base_step
LEFT JOIN router AS n ON n.run = new_run AND n.position = s.position AND n.layer = s.layer AND n.step = s.step
ORDER BY s.step, s.layer, s.position;

-- shared_prefix: positions from the first on at which both runs (one id each) hold the same token,
--   positions p with token_base(q) = token_run(q) for every q <= p.
-- Source: longest common prefix.
CREATE OR REPLACE MACRO shared_prefix(base_run, new_run) AS TABLE
WITH both_runs AS (
    SELECT a.position, a.token = b.token AS same
    FROM (SELECT t.position, arg_max(t.token, t.step) AS token FROM token AS t WHERE t.run = base_run GROUP BY t.position) AS a
    FULL JOIN (SELECT t.position, arg_max(t.token, t.step) AS token FROM token AS t WHERE t.run = new_run GROUP BY t.position) AS b
    USING (position)
)
SELECT q.position
FROM both_runs AS q
WHERE q.position < coalesce((SELECT min(w.position) FROM both_runs AS w WHERE w.same IS DISTINCT FROM true), 2147483647)
ORDER BY q.position;

-- flips: choices that differ between two runs (one id each) on their longest common prefix (workbench.analysis.diff aligns
-- the rest),
--   a flip is {experts of base} <> {experts of run},  cause as in flips_aligned.
-- Source: as flips_aligned.
CREATE OR REPLACE MACRO flips(base, run) AS TABLE
WITH prefix AS (
    SELECT coalesce(list(s.position ORDER BY s.position), []) AS positions FROM shared_prefix(base, run) AS s
)
SELECT f.position, f.layer, f.base_experts, f.run_experts, f.base_margin, f.run_margin, f.cause
FROM flips_aligned(base, run, (SELECT x.positions FROM prefix AS x), (SELECT x.positions FROM prefix AS x)) AS f
ORDER BY f.position, f.layer;

-- route_stability: how far other runs (`run`, one or a list) keep the choices of `base` (one id) on the tokens both begin with,
--   overlap = mean |A and B| / |A|,  jaccard = mean |A and B| / |A or B|,  unchanged = share with A = B,
--   top = share with the same best-weighted expert,  chance = mean |B| / E, the overlap of sets drawn at random.
-- With `base` the last checkpoint and `run` earlier ones, overlap is their saturation.
-- With `most`, over so many tokens' worth of `run` alone (some_runs): every choice set is read.
-- Source: router saturation of OLMoE (Muennighoff et al. 2024); route fluctuation by Jaccard of StableMoE (Dai et al. 2022).
CREATE OR REPLACE MACRO route_stability(base, run, first := false, most := NULL) AS TABLE
WITH base_ids AS (
    SELECT t.position, arg_max(t.token, t.step) AS token FROM token AS t WHERE t.run = base GROUP BY t.position
), other_ids AS (
    SELECT t.run, t.position, arg_max(t.token, t.step) AS token
    FROM token AS t
    WHERE t.run IN (SELECT s.id FROM some_runs(run, most) AS s)
    GROUP BY t.run, t.position
), prefix AS (
    SELECT t.run, coalesce(min(t.position) FILTER (b.token IS DISTINCT FROM t.token), max(t.position) + 1) AS positions
    FROM other_ids AS t LEFT JOIN base_ids AS b ON b.position = t.position
    GROUP BY t.run
), left_words AS (
    SELECT w.position, w.layer, w.word, w.chosen, w.top
    FROM set_cells(base) AS w
    WHERE first OR w.position > 0
    QUALIFY w.step = max(w.step) OVER (PARTITION BY w.position, w.layer)
), left_side AS (
    SELECT w.position, w.layer, sum(bit_count(w.chosen)) AS size, max(w.top) AS top,
           coalesce(max(w.chosen) FILTER (w.word = 0), 0) AS chosen
    FROM left_words AS w
    GROUP BY w.position, w.layer
), shapes AS (
    -- Runs of one step whose sets are one word each, the most frequent kind by far, need no grouping by set.
    SELECT w.run, min(w.step) = max(w.step) AND max(w.word) = 0 AS plain
    FROM set_cells((SELECT coalesce(list(p.run), []) FROM prefix AS p)) AS w
    GROUP BY w.run
), right_words AS (
    SELECT w.run, w.position, w.layer, w.step, w.word, w.chosen, w.top
    FROM set_cells((SELECT coalesce(list(s.run), []) FROM shapes AS s WHERE NOT s.plain)) AS w
    JOIN prefix AS p ON p.run = w.run AND w.position < p.positions
    WHERE first OR w.position > 0
    -- Where a position was computed in several steps the last one stands.
    QUALIFY w.step = max(w.step) OVER (PARTITION BY w.run, w.position, w.layer)
), right_side AS (
    SELECT w.run, w.position, w.layer, sum(bit_count(w.chosen)) AS size,
           sum(bit_count(w.chosen & coalesce(a.chosen, 0))) AS shared, max(w.top) AS top
    FROM right_words AS w
    LEFT JOIN left_words AS a ON a.position = w.position AND a.layer = w.layer AND a.word = w.word
    GROUP BY w.run, w.position, w.layer
), pairs AS (
    SELECT w.run, w.layer, a.top = w.top AS same, a.size AS a, bit_count(w.chosen) AS b, bit_count(a.chosen & w.chosen) AS shared
    FROM set_cells((SELECT coalesce(list(s.run), []) FROM shapes AS s WHERE s.plain)) AS w
    JOIN left_side AS a ON a.position = w.position AND a.layer = w.layer
    JOIN prefix AS p ON p.run = w.run AND w.position < p.positions
    UNION ALL
    SELECT b.run, b.layer, a.top = b.top, a.size, b.size, b.shared
    FROM right_side AS b JOIN left_side AS a ON a.position = b.position AND a.layer = b.layer
), counted AS (
    -- Pairs of equal sizes are one row from here on.
    SELECT p.run, p.layer, p.a, p.b, p.shared, count(*) AS tokens, count(*) FILTER (p.same) AS same
    FROM pairs AS p
    GROUP BY p.run, p.layer, p.a, p.b, p.shared
)
SELECT c.run, c.layer, CAST(sum(c.tokens) AS BIGINT) AS tokens, sum(c.tokens * (c.shared / c.a)) / sum(c.tokens) AS overlap,
       sum(c.tokens * (c.shared / (c.a + c.b - c.shared))) / sum(c.tokens) AS jaccard,
       coalesce(sum(c.tokens) FILTER (c.shared = c.a AND c.a = c.b), 0) / sum(c.tokens) AS unchanged,
       sum(c.same) / sum(c.tokens) AS top, sum(c.tokens * (c.b / i.num_experts)) / sum(c.tokens) AS chance
FROM counted AS c LEFT JOIN run AS i ON i.run = c.run
GROUP BY c.run, c.layer
ORDER BY c.run, c.layer;

-- load_divergence: how far the loads of other runs (`run`, one or a list) are from those of `base` (one or a list), whatever
-- their tokens,
--   divergence = JS(p, q) = (KL(p || m) + KL(q || m)) / 2,  m = (p + q) / 2.
-- Source: Jensen-Shannon divergence (Lin 1991) as drift between domains, precisions or checkpoints.
CREATE OR REPLACE MACRO load_divergence(base, run, first := false) AS TABLE
WITH before AS (
    SELECT l.layer, l.expert, l.load FROM expert_load(base, first := first) AS l
), counts AS (
    SELECT r.run, r.layer, r.expert, sum(r.choices) AS choices
    FROM expert_cells(run) AS r
    WHERE first OR NOT r.opening
    GROUP BY r.run, r.layer, r.expert
), after AS (
    SELECT c.run, c.layer, c.expert, c.choices / sum(c.choices) OVER (PARTITION BY c.run, c.layer) AS load FROM counts AS c
), grid AS (
    SELECT a.run, a.layer, e.expert
    FROM (SELECT DISTINCT q.run, q.layer FROM after AS q) AS a
    JOIN (SELECT b.layer, b.expert FROM before AS b UNION SELECT a.layer, a.expert FROM after AS a) AS e ON e.layer = a.layer
)
SELECT g.run, g.layer, greatest(0, sum(js_term(coalesce(b.load, 0), coalesce(a.load, 0)))) AS divergence
FROM grid AS g
LEFT JOIN before AS b ON b.layer = g.layer AND b.expert = g.expert
LEFT JOIN after AS a ON a.run = g.run AND a.layer = g.layer AND a.expert = g.expert
WHERE g.layer IN (SELECT b.layer FROM before AS b)
GROUP BY g.run, g.layer
ORDER BY g.run, g.layer;

-- route_neighbours: the k runs among `others` that are routed most like each run of `run`.  A run is the vector of its
-- weights by layer and expert, summed over its tokens (only its last token with `last := true`), of length one,
--   similarity = sum_{l, e} v(l, e) u(l, e)  (cosine).
-- A run is no neighbour of itself, nor of one with which it shares no expert.
-- Source: neighbours in pathway space of C3PO (Li et al. 2025) and R2-T2 (Li et al. 2025).
CREATE OR REPLACE MACRO route_neighbours(run, others, k := 3, last := false, first := false) AS TABLE
WITH wanted AS (
    SELECT q.id, bool_or(q.asked) AS asked, bool_or(NOT q.asked) AS offered
    FROM (SELECT unnest(run_ids(run)) AS id, true AS asked UNION ALL SELECT unnest(run_ids(others)), false) AS q
    GROUP BY q.id
), ends AS (
    SELECT r.run, max(r.position) AS position FROM routing AS r
    WHERE r.run IN (SELECT w.id FROM wanted AS w WHERE last) GROUP BY r.run
), vectors AS (
    SELECT r.run, r.layer, r.expert, sum(CAST(r.weight AS DOUBLE)) AS w
    FROM routing AS r JOIN ends AS e ON e.run = r.run AND r.position = e.position
    GROUP BY r.run, r.layer, r.expert
    UNION ALL
    SELECT c.run, c.layer, c.expert, sum(c.weight) AS w
    FROM expert_cells((SELECT list(w.id) FROM wanted AS w)) AS c
    WHERE NOT last AND (first OR NOT c.opening)
    GROUP BY c.run, c.layer, c.expert
), axes AS (
    SELECT DISTINCT v.layer, v.expert FROM vectors AS v
), listed AS (
    -- One list a run over the same experts: a similarity is then one inner product.
    SELECT w.id AS run, w.asked, w.offered, list(coalesce(v.w, 0) ORDER BY x.layer, x.expert) AS w
    FROM wanted AS w CROSS JOIN axes AS x
    LEFT JOIN vectors AS v ON v.run = w.id AND v.layer = x.layer AND v.expert = x.expert
    GROUP BY w.id, w.asked, w.offered
), unit AS (
    SELECT l.run, l.asked, l.offered, l.w, sqrt(list_inner_product(l.w, l.w)) AS length FROM listed AS l
), near AS (
    SELECT a.run, b.run AS other, list_inner_product(a.w, b.w) / (a.length * b.length) AS similarity
    FROM unit AS a, unit AS b
    WHERE a.asked AND b.offered AND a.length > 0 AND b.length > 0
)
-- A run itself stands last and is left out afterwards: a join of the two by any condition would copy the lists of every pair.
SELECT n.run, row_number() OVER (PARTITION BY n.run ORDER BY n.run = n.other, n.similarity DESC, n.other) AS place, n.other,
       n.similarity
FROM near AS n
WHERE n.similarity <> 0
QUALIFY place <= k AND n.run <> n.other
ORDER BY n.run, place;

-- loss_change: what other runs (`run`, one or a list) lost against `base` (one id) on the tokens both begin with,
--   loss = - mean log p(token | those before),  change = loss - base_loss, in nats a token.
-- Source: cross-entropy; log-probabilities as recorded with every token.
CREATE OR REPLACE MACRO loss_change(base, run) AS TABLE
WITH before AS (
    SELECT t.position, arg_max(t.token, t.step) AS token, arg_max(t.logprob, t.step) AS logprob
    FROM token AS t WHERE t.run = base GROUP BY t.position
), after AS (
    SELECT t.run, t.position, arg_max(t.token, t.step) AS token, arg_max(t.logprob, t.step) AS logprob
    FROM token AS t WHERE t.run IN (SELECT unnest(run_ids(run))) GROUP BY t.run, t.position
), prefix AS (
    SELECT a.run, coalesce(min(a.position) FILTER (b.token IS DISTINCT FROM a.token), max(a.position) + 1) AS positions
    FROM after AS a LEFT JOIN before AS b ON b.position = a.position
    GROUP BY a.run
)
SELECT a.run, count(*) AS tokens, -avg(CAST(b.logprob AS DOUBLE)) AS base_loss, -avg(CAST(a.logprob AS DOUBLE)) AS loss,
       avg(CAST(b.logprob AS DOUBLE)) - avg(CAST(a.logprob AS DOUBLE)) AS change
FROM after AS a
JOIN prefix AS p ON p.run = a.run AND a.position < p.positions
JOIN before AS b ON b.position = a.position
WHERE a.logprob IS NOT NULL AND b.logprob IS NOT NULL
GROUP BY a.run
ORDER BY a.run;
