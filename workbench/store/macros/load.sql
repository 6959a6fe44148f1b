-- js_term: one summand of the Jensen-Shannon divergence of two distributions p and q, in nats,
--   (p ln(p / m) + q ln(q / m)) / 2  with m = (p + q) / 2.
-- Source: Lin 1991.
CREATE OR REPLACE MACRO js_term(p, q) AS
    (CASE WHEN p > 0 THEN p * ln(2 * p / (p + q)) ELSE 0 END + CASE WHEN q > 0 THEN q * ln(2 * q / (p + q)) ELSE 0 END) / 2;

-- expert_load: choices an expert received in a layer, and their share of all choices of that layer,
--   load(l, e) = choices(l, e) / sum_e' choices(l, e').
-- Experts that were never chosen are listed with 0 where the run row says how many there are.
-- Source: f_i of Switch Transformers (Fedus, Zoph, Shazeer 2022), over k choices a token.
CREATE OR REPLACE MACRO expert_load(run, first := false) AS TABLE
WITH chosen AS (
    SELECT r.layer, r.expert, CAST(sum(r.choices) AS BIGINT) AS choices
    FROM expert_cells(run) AS r
    WHERE first OR NOT r.opening
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
--   entropy = - sum_e p_e ln p_e,  effective = exp(entropy),  imbalance = max_e p_e * E,  unused = experts without a choice,
--   cv = std(p) / mean(p) over the experts,  max_violation = max_e p_e * E - 1,
--   gini = sum_e (2 i_e - E - 1) p_e / E  with i_e the place of e in ascending order of load.
-- Source: Shannon entropy and its perplexity; max over mean load as in GShard (Lepikhin et al. 2021); cv of the load of
-- Shazeer et al. 2017; max violation of loss-free balancing (Wang et al. 2024); Gini 1912.
CREATE OR REPLACE MACRO load_balance(run, first := false) AS TABLE
WITH loads AS (
    SELECT l.layer, l.choices, l.load, row_number() OVER (PARTITION BY l.layer ORDER BY l.load, l.expert) AS place
    FROM expert_load(run, first := first) AS l
)
SELECT l.layer, count(*) AS experts,
       -sum(CASE WHEN l.load > 0 THEN l.load * ln(l.load) ELSE 0 END) AS entropy,
       exp(-sum(CASE WHEN l.load > 0 THEN l.load * ln(l.load) ELSE 0 END)) AS effective,
       max(l.load) * count(*) AS imbalance,
       count(*) FILTER (l.choices = 0) AS unused,
       stddev_pop(l.load) / avg(l.load) AS cv,
       max(l.load) * count(*) - 1 AS max_violation,
       2 * sum(l.place * l.load) / count(*) - (count(*) + 1) / count(*) AS gini
FROM loads AS l
GROUP BY l.layer
ORDER BY l.layer;

-- expert_importance: what an expert receives by weight instead of by count,
--   importance(l, e) = sum of its weights,  share = importance / sum_e' importance,  weight = mean weight when chosen.
-- Experts that were never chosen are listed with 0 where the run row says how many there are.
-- Source: importance of Shazeer et al. 2017, over the executed weights (those of the experts not chosen are not in it).
CREATE OR REPLACE MACRO expert_importance(run, first := false) AS TABLE
WITH sums AS (
    SELECT r.layer, r.expert, sum(r.weight) AS importance
    FROM expert_cells(run) AS r
    WHERE first OR NOT r.opening
    GROUP BY r.layer, r.expert
)
SELECT l.layer, l.expert, coalesce(s.importance, 0) AS importance,
       coalesce(s.importance, 0) / sum(s.importance) OVER (PARTITION BY l.layer) AS share,
       s.importance / l.choices AS weight
FROM expert_load(run, first := first) AS l LEFT JOIN sums AS s ON s.layer = l.layer AND s.expert = l.expert
ORDER BY l.layer, l.expert;

-- weight_profile: how a choice divides its weight among its slots, by rank,
--   weight = mean weight,  share = mean of weight / sum of the weights of that choice.
-- Source: ordered routing weights, as in "Harder Tasks Need More Experts" (Huang et al. 2024).
CREATE OR REPLACE MACRO weight_profile(run, first := false) AS TABLE
SELECT s.layer, s.rank, CAST(sum(s.choices) AS BIGINT) AS choices, sum(s.weight) / sum(s.choices) AS weight,
       sum(s.share) / nullif(sum(s.shared), 0) AS share
FROM rank_cells(run) AS s
WHERE first OR NOT s.opening
GROUP BY s.layer, s.rank
ORDER BY s.layer, s.rank;

-- dataset_entropy: is each token sure, and are all tokens different?  With w the weights of one choice divided by their sum,
--   token_entropy = mean over tokens of - sum_e w_e ln w_e,  dataset_entropy = - sum_e m_e ln m_e  with m the mean of w,
--   information = dataset_entropy - token_entropy  (nats that a token's choice says about the token).
-- Sure and different is low token entropy with high dataset entropy.
-- Source: token-level against data-set-level router entropy of MoE surveys; the difference is Jensen-Shannon (Lin 1991).
CREATE OR REPLACE MACRO dataset_entropy(run, first := false) AS TABLE
WITH whole AS (
    SELECT n.layer, sum(n.shared) AS tokens FROM layer_cells(run) AS n WHERE first OR NOT n.opening
    GROUP BY n.layer HAVING sum(n.shared) > 0
), cells AS (
    SELECT s.layer, s.expert, coalesce(sum(s.share), 0) AS w, coalesce(sum(s.share_ln), 0) AS wlnw
    FROM expert_cells(run) AS s
    WHERE first OR NOT s.opening
    GROUP BY s.layer, s.expert
)
SELECT c.layer, CAST(any_value(n.tokens) AS BIGINT) AS tokens, -sum(c.wlnw / n.tokens) AS token_entropy,
       -sum(CASE WHEN c.w > 0 THEN c.w / n.tokens * ln(c.w / n.tokens) ELSE 0 END) AS dataset_entropy,
       sum(c.wlnw / n.tokens) - sum(CASE WHEN c.w > 0 THEN c.w / n.tokens * ln(c.w / n.tokens) ELSE 0 END) AS information
FROM cells AS c JOIN whole AS n ON n.layer = c.layer
GROUP BY c.layer
ORDER BY c.layer;

-- position_effect: whether the load depends on where a token stands, in bins of `width` positions,
--   entropy = - sum_e p_e ln p_e  of the loads of the bin,  divergence = JS(p, q) = (KL(p || m) + KL(q || m)) / 2,
--   m = (p + q) / 2,  between the loads p of the bin and q of the whole layer; 0 for equal, ln 2 at most.
-- Source: position effects of OpenMoE (Xue et al. 2024), measured by the divergence of Lin 1991.
CREATE OR REPLACE MACRO position_effect(run, width := 128, first := false) AS TABLE
WITH counts AS (
    -- Widths that 128 divides are among the kept sums; others are counted in the rows.
    SELECT p.layer, p.place * 128 // width * width AS from_position, p.expert, sum(p.choices) AS choices
    FROM place_totals((SELECT coalesce(list(q.id), []) FROM (SELECT unnest(run_ids(run)) AS id) AS q WHERE width % 128 = 0)) AS p
    WHERE first OR NOT p.opening
    GROUP BY p.layer, from_position, p.expert
    UNION ALL
    SELECT r.layer, r.position // width * width AS from_position, r.expert, count(*) AS choices
    FROM routing AS r
    WHERE r.run IN (SELECT q.id FROM (SELECT unnest(run_ids(run)) AS id) AS q WHERE width % 128 <> 0)
      AND (first OR r.position > 0)
    GROUP BY r.layer, from_position, r.expert
), whole AS (
    SELECT c.layer, c.expert, sum(c.choices) / sum(sum(c.choices)) OVER (PARTITION BY c.layer) AS q
    FROM counts AS c
    GROUP BY c.layer, c.expert
), bins AS (
    SELECT c.layer, c.from_position, sum(c.choices) AS choices FROM counts AS c GROUP BY c.layer, c.from_position
), grid AS (
    SELECT b.layer, b.from_position, b.choices, w.q, coalesce(c.choices, 0) / b.choices AS p
    FROM bins AS b
    JOIN whole AS w ON w.layer = b.layer
    LEFT JOIN counts AS c ON c.layer = b.layer AND c.from_position = b.from_position AND c.expert = w.expert
)
SELECT g.layer, g.from_position, CAST(any_value(g.choices) AS BIGINT) AS choices,
       -sum(CASE WHEN g.p > 0 THEN g.p * ln(g.p) ELSE 0 END) AS entropy,
       greatest(0, sum(js_term(g.p, g.q))) AS divergence
FROM grid AS g
GROUP BY g.layer, g.from_position
ORDER BY g.layer, g.from_position;

-- drops_by_position: slots that executed no expert, in bins of `width` positions,
--   share = sum of dropped slots / sum of top_k over the tokens,  touched = share of the tokens that lost a slot.
-- Source: "drop towards the end" of OpenMoE (Xue et al. 2024).
CREATE OR REPLACE MACRO drops_by_position(run, width := 128, first := false) AS TABLE
WITH counts AS (
    -- Widths that 128 divides are among the kept sums; others are counted in the rows.
    SELECT p.run, p.layer, p.place * 128 // width * width AS from_position, p.counted, p.dropped, p.touched
    FROM router_cells((SELECT coalesce(list(q.id), []) FROM (SELECT unnest(run_ids(run)) AS id) AS q WHERE width % 128 = 0)) AS p
    WHERE first OR NOT p.opening
    UNION ALL
    SELECT r.run, r.layer, r.position // width * width AS from_position, count(r.dropped), sum(r.dropped),
           count(*) FILTER (r.dropped > 0)
    FROM router AS r
    WHERE r.run IN (SELECT q.id FROM (SELECT unnest(run_ids(run)) AS id) AS q WHERE width % 128 <> 0)
      AND (first OR r.position > 0)
    GROUP BY r.run, r.layer, from_position
)
SELECT c.layer, c.from_position, CAST(sum(c.counted) AS BIGINT) AS tokens, CAST(sum(c.dropped) AS BIGINT) AS dropped,
       sum(c.dropped) / sum(c.counted * i.top_k) AS share, sum(c.touched) / sum(c.counted) AS touched
FROM counts AS c JOIN run AS i ON i.run = c.run
WHERE c.counted > 0
GROUP BY c.layer, c.from_position
ORDER BY c.layer, c.from_position;

-- routing_entropy: mean over tokens of the entropy of the router's own distribution, and of the margin;
--   ties = share of tokens whose k-th and (k+1)-th scores are equal.
-- Source: Shannon; margin and tie as in schema.sql.
CREATE OR REPLACE MACRO routing_entropy(run, first := false) AS TABLE
SELECT r.layer, CAST(sum(r.tokens) AS BIGINT) AS tokens, sum(r.entropy) / nullif(sum(r.entropies), 0) AS entropy,
       sum(r.margin) / nullif(sum(r.margins), 0) AS margin, sum(r.ties) / nullif(sum(r.told), 0) AS ties
FROM router_cells(run) AS r
WHERE first OR NOT r.opening
GROUP BY r.layer
ORDER BY r.layer;
