-- Table macros: the vocabulary of questions over the store, renewed whenever a recording process opens the file.
--
-- `run` is one run id or a list of ids.  Loads, means and rates leave out position 0 (the first token is an attention
-- sink that routes like no other) unless `first := true` is given.  Entropies and informations are in nats.  Sums go over
-- the rows as executed, after any edit.  Inside a body a bare `run` is the parameter, a qualified one is the column.

-- The ids in `run` as a list, whether it is one id or a list of them.
CREATE OR REPLACE MACRO run_ids(ids) AS
    CAST('[' || trim(CAST(ids AS VARCHAR), '[]') || ']' AS BIGINT[]);

-- expert_load: choices an expert received in a layer, and their share of all choices of that layer,
--   load(l, e) = choices(l, e) / sum_e' choices(l, e').
-- Experts that were never chosen are listed with 0 where the run row says how many there are.
-- Source: f_i of Switch Transformers (Fedus, Zoph, Shazeer 2022), over k choices a token.
CREATE OR REPLACE MACRO expert_load(run, first := false) AS TABLE
WITH chosen AS (
    SELECT r.layer, r.expert, count(*) AS choices
    FROM routing AS r
    WHERE r.run IN (SELECT unnest(run_ids(run))) AND (first OR r.position > 0)
    GROUP BY r.layer, r.expert
), known AS (
    SELECT coalesce(max(i.num_experts), 0) AS experts FROM run AS i WHERE i.run IN (SELECT unnest(run_ids(run)))
), grid AS (
    SELECT c.layer, c.expert FROM chosen AS c
    UNION
    SELECT l.layer, CAST(e.expert AS USMALLINT)
    FROM (SELECT DISTINCT c.layer FROM chosen AS c) AS l, (SELECT unnest(range(k.experts)) AS expert FROM known AS k) AS e
)
SELECT g.layer, g.expert, coalesce(c.choices, 0) AS choices,
       coalesce(c.choices, 0) / sum(c.choices) OVER (PARTITION BY g.layer) AS load
FROM grid AS g LEFT JOIN chosen AS c ON c.layer = g.layer AND c.expert = g.expert
ORDER BY g.layer, g.expert;

-- load_balance: how evenly a layer uses its experts.  With p_e the load of expert e of E,
--   entropy = - sum_e p_e ln p_e,  effective = exp(entropy),  imbalance = max_e p_e * E,  unused = experts without a choice.
-- Source: Shannon entropy and its perplexity; max over mean load as in GShard (Lepikhin et al. 2021).
CREATE OR REPLACE MACRO load_balance(run, first := false) AS TABLE
SELECT l.layer, count(*) AS experts,
       -sum(CASE WHEN l.load > 0 THEN l.load * ln(l.load) ELSE 0 END) AS entropy,
       exp(-sum(CASE WHEN l.load > 0 THEN l.load * ln(l.load) ELSE 0 END)) AS effective,
       max(l.load) * count(*) AS imbalance,
       count(*) FILTER (l.choices = 0) AS unused
FROM expert_load(run, first := first) AS l
GROUP BY l.layer
ORDER BY l.layer;

-- routing_entropy: mean over tokens of the entropy of the router's own distribution, and of the margin;
--   ties = share of tokens whose k-th and (k+1)-th scores are equal.
CREATE OR REPLACE MACRO routing_entropy(run, first := false) AS TABLE
SELECT r.layer, count(*) AS tokens, avg(r.entropy) AS entropy, avg(r.margin) AS margin,
       avg(CAST(r.tie AS INTEGER)) AS ties
FROM router AS r
WHERE r.run IN (SELECT unnest(run_ids(run))) AND (first OR r.position > 0)
GROUP BY r.layer
ORDER BY r.layer;

-- coactivation: pairs of experts (expert < other) that one token chose together in one layer,
--   probability = n(a, b) / n,  lift = n(a, b) * n / (n(a) * n(b)),  jaccard = n(a, b) / (n(a) + n(b) - n(a, b)),
-- with n tokens of that layer.  Lift 1 is independence.
-- Source: expert co-activation of OLMoE (Muennighoff et al. 2024), with lift from association rules.
CREATE OR REPLACE MACRO coactivation(run, first := false) AS TABLE
WITH sets AS (
    SELECT r.layer, list(DISTINCT r.expert) AS experts
    FROM routing AS r
    WHERE r.run IN (SELECT unnest(run_ids(run))) AND (first OR r.position > 0)
    GROUP BY r.run, r.step, r.position, r.layer
), spread AS (
    SELECT s.layer, unnest(s.experts) AS expert, s.experts FROM sets AS s
), single AS (
    SELECT s.layer, s.expert, count(*) AS tokens FROM spread AS s GROUP BY s.layer, s.expert
), whole AS (
    SELECT s.layer, count(*) AS tokens FROM sets AS s GROUP BY s.layer
), pair AS (
    -- Two unnests of a list are several times cheaper than joining the slots of a token with themselves.
    SELECT q.layer, q.expert, q.other, count(*) AS tokens
    FROM (SELECT s.layer, s.expert, unnest(s.experts) AS other FROM spread AS s) AS q
    WHERE q.expert < q.other
    GROUP BY q.layer, q.expert, q.other
)
SELECT p.layer, p.expert, p.other, p.tokens, p.tokens / w.tokens AS probability,
       CAST(p.tokens AS DOUBLE) * w.tokens / (CAST(a.tokens AS DOUBLE) * b.tokens) AS lift,
       p.tokens / (a.tokens + b.tokens - p.tokens) AS jaccard
FROM pair AS p
JOIN single AS a ON a.layer = p.layer AND a.expert = p.expert
JOIN single AS b ON b.layer = p.layer AND b.expert = p.other
JOIN whole AS w ON w.layer = p.layer
ORDER BY p.layer, p.expert, p.other;

-- expert_affinity: from the experts of one routed layer to those of the next routed layer of the same token,
--   tokens = n(e at l and e' at l'),  probability = n(e at l and e' at l') / n(e at l).
-- Source: inter-layer expert affinity of ExFlow (Yao et al. 2024), for any k.
CREATE OR REPLACE MACRO expert_affinity(run, first := false) AS TABLE
WITH sets AS (
    SELECT r.run, r.step, r.position, r.layer, list(DISTINCT r.expert) AS experts
    FROM routing AS r
    WHERE r.run IN (SELECT unnest(run_ids(run))) AND (first OR r.position > 0)
    GROUP BY r.run, r.step, r.position, r.layer
), following AS (
    SELECT d.layer, lead(d.layer) OVER (ORDER BY d.layer) AS next_layer
    FROM (SELECT DISTINCT p.layer FROM sets AS p) AS d
), single AS (
    SELECT q.layer, q.expert, count(*) AS tokens
    FROM (SELECT p.layer, unnest(p.experts) AS expert FROM sets AS p) AS q
    GROUP BY q.layer, q.expert
), steps AS (
    SELECT a.layer, f.next_layer, unnest(a.experts) AS expert, b.experts AS next_experts
    FROM sets AS a
    JOIN following AS f ON f.layer = a.layer
    JOIN sets AS b ON b.run = a.run AND b.step = a.step AND b.position = a.position AND b.layer = f.next_layer
), pair AS (
    SELECT q.layer, q.next_layer, q.expert, q.next_expert, count(*) AS tokens
    FROM (SELECT p.layer, p.next_layer, p.expert, unnest(p.next_experts) AS next_expert FROM steps AS p) AS q
    GROUP BY q.layer, q.next_layer, q.expert, q.next_expert
)
SELECT p.layer, p.next_layer, p.expert, p.next_expert, p.tokens, p.tokens / s.tokens AS probability
FROM pair AS p JOIN single AS s ON s.layer = p.layer AND s.expert = p.expert
ORDER BY p.layer, p.expert, p.next_expert;

-- specialisation: how the experts of a layer divide the values of a label of the runs (`key` in run.labels),
--   load  = n(e, v) / n(v)      share of the choices under value v that expert e received,
--   share = n(e, v) / n(e)      share of expert e's choices that stand under value v,
--   lift  = n(e, v) * n / (n(e) * n(v)),  with n(.) choices of the layer.  Runs without the label are left out.
-- Source: domain specialisation of OLMoE (Muennighoff et al. 2024).
CREATE OR REPLACE MACRO specialisation(run, key, first := false) AS TABLE
WITH cells AS (
    SELECT r.layer, r.expert, json_extract_string(i.labels, key) AS label, count(*) AS choices
    FROM routing AS r JOIN run AS i ON i.run = r.run
    WHERE r.run IN (SELECT unnest(run_ids(run))) AND (first OR r.position > 0)
      AND json_extract_string(i.labels, key) IS NOT NULL
    GROUP BY ALL
), sums AS (
    SELECT c.layer, c.expert, c.label, c.choices,
           sum(c.choices) OVER (PARTITION BY c.layer, c.label) AS of_label,
           sum(c.choices) OVER (PARTITION BY c.layer, c.expert) AS of_expert,
           sum(c.choices) OVER (PARTITION BY c.layer) AS of_layer
    FROM cells AS c
)
SELECT s.layer, s.expert, s.label, s.choices, s.choices / s.of_label AS load, s.choices / s.of_expert AS share,
       CAST(s.choices AS DOUBLE) * s.of_layer / (CAST(s.of_expert AS DOUBLE) * s.of_label) AS lift
FROM sums AS s
ORDER BY s.layer, s.expert, s.label;

-- label_information: mutual information between expert and label in each layer, over choices,
--   information = sum_{e,v} p(e, v) ln( p(e, v) / (p(e) p(v)) ),  and as a share of the expert's entropy H(e).
-- Source: Shannon; a plug-in estimate, biased upwards by about (experts - 1)(labels - 1) / (2 n).
CREATE OR REPLACE MACRO label_information(run, key, first := false) AS TABLE
WITH cells AS (
    SELECT s.layer, s.expert, s.choices, s.lift, sum(s.choices) OVER (PARTITION BY s.layer) AS of_layer,
           sum(s.choices) OVER (PARTITION BY s.layer, s.expert) AS of_expert
    FROM specialisation(run, key, first := first) AS s
), terms AS (
    -- -sum_e p(e) ln p(e) spread over the cells of each expert: p(e, v) ln p(e) summed over v is p(e) ln p(e).
    SELECT c.layer, c.choices, c.choices / c.of_layer * ln(c.lift) AS information,
           -c.choices / c.of_layer * ln(c.of_expert / c.of_layer) AS entropy
    FROM cells AS c
)
SELECT t.layer, CAST(sum(t.choices) AS BIGINT) AS choices, sum(t.information) AS information, sum(t.entropy) AS entropy,
       CASE WHEN sum(t.entropy) > 0 THEN sum(t.information) / sum(t.entropy) END AS share
FROM terms AS t
GROUP BY t.layer
ORDER BY t.layer;

-- flips_aligned: choices that differ, as SETS of experts, between two runs (one id each) at aligned positions:
-- base_positions[i] of the base stands for run_positions[i] of the new run.  The cause is the first that holds:
--   'edit'      the choice was edited in either of the runs,
--   'tie'       the k-th and (k+1)-th score were equal in either,
--   'upstream'  otherwise: the router saw a different hidden state.
-- A pair recorded in one of the runs only is no flip.
CREATE OR REPLACE MACRO flips_aligned(base_run, new_run, base_positions, run_positions) AS TABLE
WITH pairs AS (
    SELECT unnest(CAST(base_positions AS INTEGER[])) AS base_position, unnest(CAST(run_positions AS INTEGER[])) AS position
), left_side AS (
    SELECT r.position, r.layer, list(DISTINCT r.expert) AS chosen, list(r.expert ORDER BY r.rank, r.slot) AS experts
    FROM routing AS r WHERE r.run = base_run GROUP BY r.position, r.layer
), right_side AS (
    SELECT r.position, r.layer, min(r.step) AS step, list(DISTINCT r.expert) AS chosen,
           list(r.expert ORDER BY r.rank, r.slot) AS experts
    FROM routing AS r WHERE r.run = new_run GROUP BY r.position, r.layer
), left_router AS (
    SELECT r.position, r.layer, min(r.margin) AS margin, bool_or(r.tie) AS tie, bool_or(r.edited) AS edited
    FROM router AS r WHERE r.run = base_run GROUP BY r.position, r.layer
), right_router AS (
    SELECT r.position, r.layer, min(r.margin) AS margin, bool_or(r.tie) AS tie, bool_or(r.edited) AS edited
    FROM router AS r WHERE r.run = new_run GROUP BY r.position, r.layer
)
SELECT p.position, b.layer, a.experts AS base_experts, b.experts AS run_experts,
       m.margin AS base_margin, n.margin AS run_margin,
       CASE WHEN coalesce(m.edited, false) OR coalesce(n.edited, false) THEN 'edit'
            WHEN coalesce(m.tie, false) OR coalesce(n.tie, false) THEN 'tie'
            ELSE 'upstream' END AS cause,
       b.step, p.base_position
FROM pairs AS p
JOIN left_side AS a ON a.position = p.base_position
JOIN right_side AS b ON b.position = p.position AND b.layer = a.layer
LEFT JOIN left_router AS m ON m.position = a.position AND m.layer = a.layer
LEFT JOIN right_router AS n ON n.position = b.position AND n.layer = b.layer
WHERE list_sort(a.chosen) <> list_sort(b.chosen)
ORDER BY b.step, b.layer, p.position;

-- shared_prefix: positions from the first on at which both runs (one id each) hold the same token.
CREATE OR REPLACE MACRO shared_prefix(base_run, new_run) AS TABLE
WITH both_runs AS (
    SELECT a.position, a.token = b.token AS same
    FROM (SELECT t.position, max(t.token) AS token FROM token AS t WHERE t.run = base_run GROUP BY t.position) AS a
    FULL JOIN (SELECT t.position, max(t.token) AS token FROM token AS t WHERE t.run = new_run GROUP BY t.position) AS b
    USING (position)
)
SELECT q.position
FROM both_runs AS q
WHERE q.position < coalesce((SELECT min(w.position) FROM both_runs AS w WHERE w.same IS DISTINCT FROM true), 2147483647)
ORDER BY q.position;

-- flips: flips_aligned over the longest common prefix of the two runs (workbench.analysis.diff aligns the rest).
CREATE OR REPLACE MACRO flips(base, run) AS TABLE
WITH prefix AS (
    SELECT coalesce(list(s.position ORDER BY s.position), []) AS positions FROM shared_prefix(base, run) AS s
)
SELECT f.position, f.layer, f.base_experts, f.run_experts, f.base_margin, f.run_margin, f.cause
FROM flips_aligned(base, run, (SELECT x.positions FROM prefix AS x), (SELECT x.positions FROM prefix AS x)) AS f
ORDER BY f.position, f.layer;

-- layer_contribution: means over tokens of what each part of a block adds to the residual stream.
-- Source: block influence of ShortGPT (Men et al. 2024); relative norms and cosines as in schema.sql.
CREATE OR REPLACE MACRO layer_contribution(run, first := false) AS TABLE
SELECT c.layer, count(*) AS tokens, avg(c.attn_norm) AS attn_norm, avg(c.attn_cos) AS attn_cos,
       avg(c.mlp_norm) AS mlp_norm, avg(c.mlp_cos) AS mlp_cos, avg(c.block_norm) AS block_norm,
       avg(c.influence) AS influence
FROM contribution AS c
WHERE c.run IN (SELECT unnest(run_ids(run))) AND (first OR c.position > 0)
GROUP BY c.layer
ORDER BY c.layer;

-- arank_profile: means over heads, steps and runs of the ranks of the attention maps, apart by submatrix and tolerance;
--   share = mean of rank / tokens, which compares maps of different lengths.
-- Source: ARank of gamma-MoD (Luo et al. 2024), the mean over heads of the rank of the attention map.
CREATE OR REPLACE MACRO arank_profile(run) AS TABLE
SELECT a.layer, a.submatrix, a.tolerance, count(*) AS maps, avg(a.tokens) AS tokens, avg(a.rank) AS rank,
       avg(a.rank / a.tokens) AS share, avg(a.stable_rank) AS stable_rank, avg(a.effective_rank) AS effective_rank,
       avg(a.entropy) AS entropy
FROM attention_rank AS a
WHERE a.run IN (SELECT unnest(run_ids(run)))
GROUP BY a.layer, a.submatrix, a.tolerance
ORDER BY a.layer, a.submatrix, a.tolerance;

-- layer_sparsity: activation sparsity of a layer, shares weighted by the number of neurons,
--   share = sum(width * share) / sum(width),  and the plain mean of Hoyer's measure (Hoyer 2004).
CREATE OR REPLACE MACRO layer_sparsity(run, first := false) AS TABLE
SELECT s.layer, s.threshold, count(*) AS activations, sum(s.width * CAST(s.zero_share AS DOUBLE)) / sum(s.width) AS zero_share,
       sum(s.width * CAST(s.below_share AS DOUBLE)) / sum(s.width) AS below_share, avg(s.hoyer) AS hoyer
FROM sparsity AS s
WHERE s.run IN (SELECT unnest(run_ids(run))) AND (first OR s.position > 0)
GROUP BY s.layer, s.threshold
ORDER BY s.layer, s.threshold;

-- expert_sparsity: the same for every expert (-1 is a dense MLP).
CREATE OR REPLACE MACRO expert_sparsity(run, first := false) AS TABLE
SELECT s.layer, s.expert, s.threshold, count(*) AS activations,
       sum(s.width * CAST(s.zero_share AS DOUBLE)) / sum(s.width) AS zero_share,
       sum(s.width * CAST(s.below_share AS DOUBLE)) / sum(s.width) AS below_share, avg(s.hoyer) AS hoyer
FROM sparsity AS s
WHERE s.run IN (SELECT unnest(run_ids(run))) AND (first OR s.position > 0)
GROUP BY s.layer, s.expert, s.threshold
ORDER BY s.layer, s.expert, s.threshold;

-- chunk_sparsity: experts that C consecutive tokens use together, over every full chunk of positions iC+1 .. (i+1)C
-- (from position 0 with first := true) of one step,
--   union_share = mean over chunks of |union of choices| / E,
--   null_share  = mean over experts of 1 - (1 - p_e)^C,  p_e the share of the tokens that chose e: the union that tokens
--                 of the same popularity, drawn independently, would have.  Below it, neighbours share experts.
-- E is num_experts of the run row, or the experts seen where that is not known.
-- Source: chunk-level sparsity of BlockFFN (Song et al. 2025), with its complement and a popularity-aware null.
CREATE OR REPLACE MACRO chunk_sparsity(run, chunk := 8, first := false) AS TABLE
WITH picks AS (
    SELECT DISTINCT r.run, r.step, r.layer, r.position, r.expert,
           (r.position - CASE WHEN first THEN 0 ELSE 1 END) // chunk AS piece
    FROM routing AS r
    WHERE r.run IN (SELECT unnest(run_ids(run))) AND (first OR r.position > 0)
), size AS (
    SELECT l.layer, count(*) AS experts FROM expert_load(run, first := first) AS l GROUP BY l.layer
), unions AS (
    SELECT p.layer, count(DISTINCT p.expert) AS used
    FROM picks AS p
    GROUP BY p.run, p.step, p.layer, p.piece
    HAVING count(DISTINCT p.position) = chunk
), popularity AS (
    SELECT p.layer, p.expert, count(*) AS tokens FROM picks AS p GROUP BY p.layer, p.expert
), whole AS (
    SELECT d.layer, count(*) AS tokens
    FROM (SELECT DISTINCT p.run, p.step, p.position, p.layer FROM picks AS p) AS d
    GROUP BY d.layer
), expected AS (
    SELECT q.layer, sum(1 - pow(1 - q.tokens / w.tokens, chunk)) AS used
    FROM popularity AS q JOIN whole AS w ON w.layer = q.layer
    GROUP BY q.layer
)
SELECT u.layer, count(*) AS chunks, avg(u.used) / any_value(z.experts) AS union_share,
       any_value(x.used) / any_value(z.experts) AS null_share, 1 - avg(u.used) / any_value(z.experts) AS sparsity
FROM unions AS u JOIN size AS z ON z.layer = u.layer JOIN expected AS x ON x.layer = u.layer
GROUP BY u.layer
ORDER BY u.layer;

-- saliency: what an expert adds, over the tokens that chose it and whose norms were recorded,
--   weighted_norm_sum = sum weight * norm,  saliency = weighted_norm_sum / tokens.
-- Source: router-weighted activation of REAP (Lasby et al. 2025).
CREATE OR REPLACE MACRO saliency(run, first := false) AS TABLE
SELECT r.layer, r.expert, count(*) AS tokens, sum(CAST(r.weight AS DOUBLE)) AS weight_sum,
       sum(CAST(r.norm AS DOUBLE)) AS norm_sum, sum(CAST(r.weight AS DOUBLE) * r.norm) AS weighted_norm_sum,
       avg(CAST(r.weight AS DOUBLE) * r.norm) AS saliency
FROM routing AS r
WHERE r.run IN (SELECT unnest(run_ids(run))) AND (first OR r.position > 0) AND r.norm IS NOT NULL
GROUP BY r.layer, r.expert
ORDER BY r.layer, r.expert;

-- route_repetition: share of tokens that keep something of the choice of the token before them, in the same run and layer,
--   first_choice = share whose highest-weighted expert is the same,  overlap = share with any expert in common,
--   expected = sum_e p_e^2 with p_e the share of tokens whose first choice is e: repetition of independent tokens.
-- Source: repeated assignments of Mixtral (Jiang et al. 2024), with a popularity-aware chance level.
CREATE OR REPLACE MACRO route_repetition(run, first := false) AS TABLE
WITH choices AS (
    SELECT r.run, r.layer, r.position, list(DISTINCT r.expert) AS experts, arg_min(r.expert, r.rank) AS top
    FROM routing AS r
    WHERE r.run IN (SELECT unnest(run_ids(run))) AND (first OR r.position > 0)
    GROUP BY r.run, r.layer, r.position
), pairs AS (
    SELECT b.layer, a.top = b.top AS same, list_has_any(a.experts, b.experts) AS overlap
    FROM choices AS a JOIN choices AS b ON b.run = a.run AND b.layer = a.layer AND b.position = a.position + 1
), chance AS (
    SELECT t.layer, sum(pow(t.share, 2)) AS expected
    FROM (SELECT c.layer, c.top, count(*) / sum(count(*)) OVER (PARTITION BY c.layer) AS share
          FROM choices AS c GROUP BY c.layer, c.top) AS t
    GROUP BY t.layer
)
SELECT p.layer, count(*) AS tokens, avg(CAST(p.same AS INTEGER)) AS first_choice, avg(CAST(p.overlap AS INTEGER)) AS overlap,
       any_value(c.expected) AS expected
FROM pairs AS p JOIN chance AS c ON c.layer = p.layer
GROUP BY p.layer
ORDER BY p.layer;

-- routing_map: one row a position and layer with what a map of the run shows; `top` is the expert of the largest weight,
-- lists are in slot order.  Where a position was computed in several steps the last one stands.
CREATE OR REPLACE MACRO routing_map(run) AS TABLE
WITH latest AS (
    SELECT r.run, r.position, r.layer, r.step, arg_min(r.expert, r.rank) AS top,
           list(r.expert ORDER BY r.slot) AS experts, list(r.weight ORDER BY r.slot) AS weights
    FROM routing AS r
    WHERE r.run IN (SELECT unnest(run_ids(run)))
    GROUP BY r.run, r.position, r.layer, r.step
    QUALIFY r.step = max(r.step) OVER (PARTITION BY r.run, r.position, r.layer)
)
SELECT l.run, l.position, l.layer, l.step, l.top, l.experts, l.weights, q.margin, q.entropy, q.tie, q.edited, q.native
FROM latest AS l
LEFT JOIN router AS q ON q.run = l.run AND q.step = l.step AND q.position = l.position AND q.layer = l.layer
ORDER BY l.run, l.position, l.layer;

-- cell: everything recorded about one position and layer of one run, one row an expert: every expert where scores were
-- recorded, else those chosen and those the model alone would have chosen.
CREATE OR REPLACE MACRO cell(run, at_layer, at_position) AS TABLE
WITH at_step AS (
    SELECT max(r.step) AS step FROM routing AS r
    WHERE r.run IN (SELECT unnest(run_ids(run))) AND r.layer = at_layer AND r.position = at_position
), picked AS (
    SELECT r.expert, r.slot, r.rank, r.weight, r.norm FROM routing AS r
    WHERE r.run IN (SELECT unnest(run_ids(run))) AND r.layer = at_layer AND r.position = at_position
      AND r.step = (SELECT s.step FROM at_step AS s)
), state AS (
    SELECT q.margin, q.entropy, q.tie, q.edited, q.native, q.native_weights FROM router AS q
    WHERE q.run IN (SELECT unnest(run_ids(run))) AND q.layer = at_layer AND q.position = at_position
      AND q.step = (SELECT s.step FROM at_step AS s)
), own AS (
    SELECT unnest(q.native) AS expert, unnest(q.native_weights) AS weight FROM state AS q
), scored AS (
    SELECT CAST(unnest(range(len(v.scores))) AS USMALLINT) AS expert, unnest(v.scores) AS score, unnest(v.logits) AS logit
    FROM router_scores AS v
    WHERE v.run IN (SELECT unnest(run_ids(run))) AND v.layer = at_layer AND v.position = at_position
      AND v.step = (SELECT s.step FROM at_step AS s)
), listed AS (
    SELECT p.expert FROM picked AS p UNION SELECT o.expert FROM own AS o UNION SELECT v.expert FROM scored AS v
)
SELECT e.expert, p.slot IS NOT NULL AS chosen, p.slot, p.rank, p.weight, p.norm,
       CASE WHEN q.native IS NULL THEN p.slot IS NOT NULL ELSE list_contains(q.native, e.expert) END AS native,
       CASE WHEN q.native IS NULL THEN p.weight ELSE o.weight END AS native_weight,
       v.score, v.logit, q.margin, q.entropy, q.tie, coalesce(q.edited, false) AS edited
FROM listed AS e
LEFT JOIN picked AS p ON p.expert = e.expert
LEFT JOIN own AS o ON o.expert = e.expert
LEFT JOIN scored AS v ON v.expert = e.expert
LEFT JOIN state AS q ON true
ORDER BY p.slot NULLS LAST, v.score DESC NULLS LAST, e.expert;
