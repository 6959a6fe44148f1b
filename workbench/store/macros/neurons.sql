-- layer_sparsity: activation sparsity of a layer, shares weighted by the number of neurons,
--   share = sum(width * share) / sum(width),  and the plain mean of Hoyer's measure.
-- Source: zeros and near-zeros of activation-sparse inference ("Deja Vu", Liu et al. 2023); Hoyer 2004.
CREATE OR REPLACE MACRO layer_sparsity(run, first := false) AS TABLE
SELECT s.layer, s.threshold, CAST(sum(s.activations) AS BIGINT) AS activations, sum(s.zero) / sum(s.width) AS zero_share,
       sum(s.below) / sum(s.width) AS below_share, sum(s.hoyer) / nullif(sum(s.hoyers), 0) AS hoyer
FROM sparsity_cells(run) AS s
WHERE first OR NOT s.opening
GROUP BY s.layer, s.threshold
ORDER BY s.layer, s.threshold;

-- expert_sparsity: activation sparsity of every expert (-1 is a dense MLP),
--   columns as in layer_sparsity, over the tokens that chose the expert.
-- Source: as layer_sparsity.
CREATE OR REPLACE MACRO expert_sparsity(run, first := false) AS TABLE
SELECT s.layer, s.expert, s.threshold, CAST(sum(s.activations) AS BIGINT) AS activations,
       sum(s.zero) / sum(s.width) AS zero_share, sum(s.below) / sum(s.width) AS below_share,
       sum(s.hoyer) / nullif(sum(s.hoyers), 0) AS hoyer
FROM sparsity_cells(run) AS s
WHERE first OR NOT s.opening
GROUP BY s.layer, s.expert, s.threshold
ORDER BY s.layer, s.expert, s.threshold;

-- saliency: what an expert adds, over the tokens that chose it and whose norms were recorded,
--   frequency = tokens / choices of the layer,  norm_sum = sum of norms (expert activation norm),
--   weighted_norm_sum = sum weight * norm,  saliency = weighted_norm_sum / tokens.
-- The weight is the executed one; see `reap` for the definition by the softmax over all experts.
-- Source: frequency, expert activation norm (EAN) and router-weighted activation as compared by REAP (Lasby et al. 2025).
CREATE OR REPLACE MACRO saliency(run, first := false) AS TABLE
SELECT r.layer, r.expert, CAST(sum(r.normed) AS BIGINT) AS tokens, sum(r.norm_weight) AS weight_sum, sum(r.norm) AS norm_sum,
       sum(r.weighted_norm) AS weighted_norm_sum, sum(r.weighted_norm) / sum(r.normed) AS saliency,
       sum(r.normed) / sum(sum(r.normed)) OVER (PARTITION BY r.layer) AS frequency
FROM expert_cells(run) AS r
WHERE (first OR NOT r.opening) AND r.normed > 0
GROUP BY r.layer, r.expert
ORDER BY r.layer, r.expert;

-- reap: saliency of an expert by the probability that the router gives it among ALL experts, over the tokens that chose it,
--   probability = mean softmax(logits)_e,  saliency = mean softmax(logits)_e * norm.
-- Rows exist only where full score vectors and norms were recorded (wb.Record(scores=True)).
-- Source: REAP (Lasby et al. 2025); a family whose router is a sigmoid has no such softmax of its own.
CREATE OR REPLACE MACRO reap(run, first := false) AS TABLE
WITH shifted AS (
    SELECT s.run, s.step, s.position, s.layer, s.logits, list_max(s.logits) AS top
    FROM router_scores AS s
    WHERE s.run IN (SELECT unnest(run_ids(run))) AND (first OR s.position > 0) AND s.logits IS NOT NULL
), sums AS (
    SELECT s.run, s.step, s.position, s.layer, s.logits, s.top,
           list_sum(list_transform(s.logits, lambda x: exp(CAST(x AS DOUBLE) - s.top))) AS total
    FROM shifted AS s
), terms AS (
    SELECT r.layer, r.expert, exp(CAST(list_extract(s.logits, r.expert + 1) AS DOUBLE) - s.top) / s.total AS p, r.norm
    FROM routing AS r
    JOIN sums AS s ON s.run = r.run AND s.step = r.step AND s.position = r.position AND s.layer = r.layer
    WHERE r.run IN (SELECT unnest(run_ids(run))) AND r.norm IS NOT NULL
)
SELECT t.layer, t.expert, count(*) AS tokens, avg(t.p) AS probability, avg(CAST(t.norm AS DOUBLE)) AS norm,
       avg(t.p * t.norm) AS saliency
FROM terms AS t
GROUP BY t.layer, t.expert
ORDER BY t.layer, t.expert;

-- norm_rank: do the heavy slots also answer loudest?  By rank of the weight,
--   norm = mean norm of the expert's output,  place = mean place of that norm among the slots of the choice (0 is the largest),
--   agreement = share of choices in which weight and norm have the same place.
-- Source: response norms as a routing signal, CompeteSMoE (Pham et al. 2024).
CREATE OR REPLACE MACRO norm_rank(run, first := false) AS TABLE
SELECT p.layer, p.rank, CAST(sum(p.normed) AS BIGINT) AS choices, sum(p.norm) / sum(p.normed) AS norm,
       sum(p.place) / sum(p.normed) AS place, sum(p.agree) / sum(p.normed) AS agreement
FROM rank_cells(run) AS p
WHERE (first OR NOT p.opening) AND p.normed > 0
GROUP BY p.layer, p.rank
ORDER BY p.layer, p.rank;

-- neuron_summary: how the neurons of a layer share the work (expert -1 is a dense MLP).  A neuron's rate is the mean over runs,
--   dead = share of neurons with rate 0,  constant = share with rate 1,  mean, median = of the rates,
--   gini = sum_i (2 i - n - 1) rate_i / (n sum_i rate_i)  with the rates in ascending order.
-- Source: neuron census of "Deja Vu" (Liu et al. 2023) and of dead units; Gini 1912.
CREATE OR REPLACE MACRO neuron_summary(run) AS TABLE
WITH rates AS (
    SELECT n.layer, n.expert, n.neuron, avg(CAST(n.rate AS DOUBLE)) AS rate
    FROM neuron_rate AS n
    WHERE n.run IN (SELECT unnest(run_ids(run)))
    GROUP BY n.layer, n.expert, n.neuron
), placed AS (
    SELECT r.layer, r.expert, r.rate, row_number() OVER (PARTITION BY r.layer, r.expert ORDER BY r.rate, r.neuron) AS place
    FROM rates AS r
)
SELECT p.layer, p.expert, count(*) AS neurons, avg(CAST(p.rate = 0 AS INTEGER)) AS dead,
       avg(CAST(p.rate = 1 AS INTEGER)) AS constant, avg(p.rate) AS mean, median(p.rate) AS median,
       CASE WHEN sum(p.rate) > 0 THEN 2 * sum(p.place * p.rate) / (count(*) * sum(p.rate)) - (count(*) + 1) / count(*) END AS gini
FROM placed AS p
GROUP BY p.layer, p.expert
ORDER BY p.layer, p.expert;
