-- specialisation: how the experts of a layer divide the values of a label of the runs (`key` in run.labels),
--   load  = n(e, v) / n(v)      share of the choices under value v that expert e received,
--   share = n(e, v) / n(e)      share of expert e's choices that stand under value v,
--   lift  = n(e, v) * n / (n(e) * n(v)),  with n(.) choices of the layer.  Runs without the label are left out.
-- Source: domain specialisation of OLMoE (Muennighoff et al. 2024).
CREATE OR REPLACE MACRO specialisation(run, key, first := false) AS TABLE
WITH cells AS (
    SELECT r.layer, r.expert, json_extract_string(i.labels, key) AS label, CAST(sum(r.choices) AS BIGINT) AS choices
    FROM expert_cells(run) AS r JOIN run AS i ON i.run = r.run
    WHERE (first OR NOT r.opening) AND json_extract_string(i.labels, key) IS NOT NULL
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

-- label_null: is the information between expert and label more than chance?  The labels are dealt anew among the runs, which
-- keeps every run whole: tokens of one text are no independent draws.  Deal s gives the i-th run (by id) the label of the
-- i-th run in the order of md5('run:s'), so the answer is the same on every machine,
--   information as in label_information,  null_mean and null_sd over the deals,
--   p_value = (1 + deals with at least that information) / (1 + deals).
-- Source: permutation test (Fisher 1935; Phipson and Smyth 2010 for the added one).
CREATE OR REPLACE MACRO label_null(run, key, shuffles := 99, first := false) AS TABLE
WITH labelled AS (
    SELECT i.run, json_extract_string(i.labels, key) AS label, row_number() OVER (ORDER BY i.run) AS place
    FROM run AS i
    WHERE i.run IN (SELECT unnest(run_ids(run))) AND json_extract_string(i.labels, key) IS NOT NULL
), counts AS (
    SELECT l.place, r.layer, r.expert, CAST(sum(r.choices) AS DOUBLE) AS choices
    FROM expert_cells(run) AS r JOIN labelled AS l ON l.run = r.run
    WHERE first OR NOT r.opening
    GROUP BY l.place, r.layer, r.expert
), vectors AS (
    -- Every expert as one list, a number a labelled run: a deal is then an inner product with a list of zeros and ones.
    SELECT g.layer, g.expert, list(coalesce(c.choices, 0) ORDER BY l.place) AS choices
    FROM (SELECT DISTINCT c.layer, c.expert FROM counts AS c) AS g CROSS JOIN labelled AS l
    LEFT JOIN counts AS c ON c.layer = g.layer AND c.expert = g.expert AND c.place = l.place
    GROUP BY g.layer, g.expert
), totals AS (
    SELECT v.layer, v.expert, v.choices, list_sum(v.choices) AS of_expert,
           sum(list_sum(v.choices)) OVER (PARTITION BY v.layer) AS n
    FROM vectors AS v
), deals AS (
    SELECT d.deal, l.label, row_number() OVER (
        PARTITION BY d.deal ORDER BY CASE WHEN d.deal = 0 THEN NULL ELSE md5(concat(l.run, ':', d.deal)) END, l.run
    ) AS place
    FROM labelled AS l, (SELECT unnest(range(shuffles + 1)) AS deal) AS d
), masks AS (
    SELECT d.deal, n.label, list(CASE WHEN d.label = n.label THEN 1::DOUBLE ELSE 0 END ORDER BY d.place) AS dealt
    FROM deals AS d, (SELECT DISTINCT l.label FROM labelled AS l) AS n
    GROUP BY d.deal, n.label
), cells AS (
    SELECT m.deal, t.layer, m.label, t.of_expert, t.n, list_inner_product(t.choices, m.dealt) AS choices
    FROM totals AS t, masks AS m
), sums AS (
    SELECT c.deal, c.layer, c.choices, c.of_expert, c.n,
           sum(c.choices) OVER (PARTITION BY c.deal, c.layer, c.label) AS of_label
    FROM cells AS c
    WHERE c.choices > 0
), values_of AS (
    SELECT s.deal, s.layer, sum(s.choices / s.n * ln(s.choices / s.of_expert * (s.n / s.of_label))) AS information
    FROM sums AS s
    GROUP BY s.deal, s.layer
), observed AS (
    SELECT v.layer, v.information FROM values_of AS v WHERE v.deal = 0
)
SELECT o.layer, o.information, avg(v.information) AS null_mean, stddev_pop(v.information) AS null_sd,
       (1 + count(*) FILTER (v.information >= o.information - 1e-12)) / (1 + count(*)) AS p_value, count(*) AS shuffles
FROM observed AS o JOIN values_of AS v ON v.layer = o.layer AND v.deal > 0
GROUP BY o.layer, o.information
ORDER BY o.layer;

-- group_divergence: how far the loads of two values of a label are apart in a layer (label < other),
--   divergence = JS(p, q) = (KL(p || m) + KL(q || m)) / 2,  m = (p + q) / 2; 0 for equal, ln 2 for disjoint loads.
-- Source: Jensen-Shannon divergence (Lin 1991) of the loads of multilingual routing (Bandarkar et al. 2025).
CREATE OR REPLACE MACRO group_divergence(run, key, first := false) AS TABLE
WITH loads AS (
    SELECT s.layer, s.expert, s.label, s.load FROM specialisation(run, key, first := first) AS s
), labels_of AS (
    SELECT DISTINCT l.layer, l.label FROM loads AS l
), grid AS (
    SELECT a.layer, a.label, b.label AS other, e.expert
    FROM labels_of AS a JOIN labels_of AS b ON b.layer = a.layer AND b.label > a.label
    JOIN (SELECT DISTINCT l.layer, l.expert FROM loads AS l) AS e ON e.layer = a.layer
)
SELECT g.layer, g.label, g.other, greatest(0, sum(js_term(coalesce(p.load, 0), coalesce(q.load, 0)))) AS divergence
FROM grid AS g
LEFT JOIN loads AS p ON p.layer = g.layer AND p.expert = g.expert AND p.label = g.label
LEFT JOIN loads AS q ON q.layer = g.layer AND q.expert = g.expert AND q.label = g.other
GROUP BY g.layer, g.label, g.other
ORDER BY g.layer, g.label, g.other;

-- risk_difference: experts that are active under one value of a label and not under another,
--   rate = share of the tokens under value `a` that chose e,  other_rate = the same under value `b`,
--   difference = rate - other_rate.
-- Source: risk difference of SteerMoE (Fayyaz et al. 2025).
CREATE OR REPLACE MACRO risk_difference(run, key, a, b, first := false) AS TABLE
WITH labelled AS (
    SELECT i.run, json_extract_string(i.labels, key) AS label FROM run AS i
    WHERE i.run IN (SELECT unnest(run_ids(run))) AND json_extract_string(i.labels, key) IN (a, b)
), whole AS (
    SELECT n.layer, CAST(coalesce(sum(n.tokens) FILTER (l.label = a), 0) AS BIGINT) AS tokens,
           CAST(coalesce(sum(n.tokens) FILTER (l.label = b), 0) AS BIGINT) AS other_tokens
    FROM layer_cells(run) AS n JOIN labelled AS l ON l.run = n.run
    WHERE first OR NOT n.opening
    GROUP BY n.layer
), chosen AS (
    SELECT p.layer, p.expert, coalesce(sum(p.sets) FILTER (l.label = a), 0) AS chosen,
           coalesce(sum(p.sets) FILTER (l.label = b), 0) AS other_chosen
    FROM expert_cells(run) AS p JOIN labelled AS l ON l.run = p.run
    WHERE first OR NOT p.opening
    GROUP BY p.layer, p.expert
)
SELECT c.layer, c.expert, w.tokens, w.other_tokens, c.chosen / w.tokens AS rate, c.other_chosen / w.other_tokens AS other_rate,
       c.chosen / w.tokens - c.other_chosen / w.other_tokens AS difference
FROM chosen AS c JOIN whole AS w ON w.layer = c.layer
WHERE w.tokens > 0 AND w.other_tokens > 0
ORDER BY difference DESC, c.layer, c.expert;

-- context_independence: how far the token's id alone fixes its experts,
--   conditional = H(expert | id),  entropy = H(expert),  share = conditional / entropy  (0: by the id, 1: the id says nothing),
--   null_share = the same as it is to be expected where the ids are dealt anew among the tokens: a rare id fixes its experts by
--                being rare, and this is how much.  An expert that K of N tokens chose is then chosen X times under an id of n
--                tokens, X hypergeometric, and E[X ln X] is summed term by term, or where E[X] >= 8 by the moments of X,
--                mu ln mu + m2 / (2 mu) - m3 / (6 mu^2) + m4 / (12 mu^3), to 1e-4 of it.
-- Runs that are in no pool are counted; with `most`, so many tokens' worth of runs alone (some_runs).
-- Source: context-independent specialisation of OpenMoE (Xue et al. 2024), with a frequency-matched null.
CREATE OR REPLACE MACRO context_independence(run, first := false, most := NULL) AS TABLE
WITH asked AS MATERIALIZED (
    SELECT coalesce(list(s.id), []) AS ids FROM some_runs(run, most) AS s
), changes AS MATERIALIZED (
    FROM token_changes((SELECT a.ids FROM asked AS a), first := first)
), pool AS MATERIALIZED (
    SELECT f.pool FROM pool_for((SELECT a.ids FROM asked AS a)) AS f
), moved AS (
    SELECT n.layer, n.token, sum(n.tops) AS tokens, sum(n.choices) AS choices,
           sum(x_ln_x(n.kept + n.choices) - x_ln_x(n.kept)) AS spread
    FROM (
        SELECT c.layer, c.token, c.choices, c.tops,
               coalesce(p.choices_of[list_position(p.experts, c.expert)], 0) AS kept
        FROM changes AS c
        LEFT JOIN (SELECT t.* FROM token_pool AS t WHERE t.pool = (SELECT f.pool FROM pool AS f)) AS p
          ON p.layer = c.layer AND p.token = c.token
    ) AS n
    GROUP BY n.layer, n.token
), of_token AS (
    SELECT q.layer, CAST(sum(q.tokens) AS BIGINT) AS tokens, CAST(sum(q.choices) AS DOUBLE) AS n,
           sum(q.spread) - x_ln_x(CAST(sum(q.choices) AS DOUBLE)) AS term
    FROM (
        SELECT m.layer, m.token, m.tokens, m.choices, m.spread FROM moved AS m
        UNION ALL
        SELECT t.layer, t.token, t.tokens, t.choices, t.spread
        FROM token_pool AS t WHERE t.pool = (SELECT f.pool FROM pool AS f)
    ) AS q
    GROUP BY q.layer, q.token
    HAVING sum(q.choices) > 0
), of_expert AS (
    SELECT q.layer, CAST(sum(q.choices) AS DOUBLE) AS n
    FROM (
        SELECT c.layer, c.expert, c.choices FROM changes AS c
        UNION ALL
        SELECT e.layer, e.expert, e.choices FROM expert_pool AS e WHERE e.pool = (SELECT f.pool FROM pool AS f)
    ) AS q
    GROUP BY q.layer, q.expert
    HAVING sum(q.choices) > 0
), whole AS (
    SELECT t.layer, count(*) AS ids, CAST(sum(t.tokens) AS BIGINT) AS tokens, sum(t.n) AS n, -sum(t.term) / sum(t.n) AS conditional
    FROM of_token AS t
    GROUP BY t.layer
), marginal AS (
    SELECT e.layer, ln(sum(e.n)) - sum(e.n * ln(e.n)) / sum(e.n) AS entropy FROM of_expert AS e GROUP BY e.layer
), sizes AS (
    SELECT t.layer, t.tokens, count(*) AS ids FROM of_token AS t WHERE t.tokens > 0 GROUP BY t.layer, t.tokens
), held AS (
    -- Experts that equally many tokens chose are one case.
    SELECT e.layer, least(CAST(e.n AS BIGINT), w.tokens) AS chosen, w.tokens AS of_layer, count(*) AS experts
    FROM of_expert AS e JOIN whole AS w ON w.layer = e.layer
    GROUP BY e.layer, chosen, w.tokens
), cases AS (
    SELECT s.layer, s.tokens AS n, h.chosen AS k, h.of_layer AS of_all, s.ids * h.experts AS weight,
           CAST(s.tokens AS DOUBLE) * h.chosen / h.of_layer AS mu
    FROM sizes AS s JOIN held AS h ON h.layer = s.layer
), few AS (
    -- The factorials of a probability that X has no part in.
    SELECT c.layer, c.n, c.k, c.of_all, c.weight, c.mu + 7 * sqrt(c.mu) + 8 AS most_likely,
           lgamma(c.k + 1) + lgamma(c.of_all - c.k + 1) + lgamma(c.n + 1) + lgamma(c.of_all - c.n + 1)
           - lgamma(c.of_all + 1) AS ln_constant
    FROM cases AS c
    WHERE c.mu < 8
), summed AS (
    SELECT f.layer, sum(f.weight * x.x_ln_x * exp(
               f.ln_constant - x.ln_factorial - lgamma(f.k - x.x + 1) - lgamma(f.n - x.x + 1)
               - lgamma(f.of_all - f.k - f.n + x.x + 1)
           )) AS term
    FROM few AS f JOIN (
        SELECT q.x, q.x * ln(q.x) AS x_ln_x, lgamma(q.x + 1) AS ln_factorial FROM (SELECT unnest(range(2, 36)) AS x) AS q
    ) AS x ON x.x <= least(f.n, f.k, f.most_likely) AND f.n - x.x <= f.of_all - f.k
    GROUP BY f.layer
), moments AS (
    SELECT c.layer, c.weight, c.mu, 1 - 2 * c.k / c.of_all AS skew,
           c.mu * (1 - c.k / c.of_all) * (c.of_all - c.n) / (c.of_all - 1) AS m2, c.n, c.of_all, c.k / c.of_all AS p
    FROM cases AS c
    WHERE c.mu >= 8
), approached AS (
    SELECT m.layer, sum(m.weight * (
               m.mu * ln(m.mu) + m.m2 / (2 * m.mu)
               - m.m2 * m.skew * (m.of_all - 2 * m.n) / greatest(m.of_all - 2, 1) / (6 * m.mu * m.mu)
               + (3 * m.m2 * m.m2 + m.m2 * (1 - 6 * m.p * (1 - m.p))) / (12 * m.mu * m.mu * m.mu)
           )) AS term
    FROM moments AS m
    GROUP BY m.layer
), dealt AS (
    -- Under every id as many choices as its tokens have on average.
    SELECT s.layer, sum(s.ids * (s.tokens * w.n / w.tokens) * ln(s.tokens * w.n / w.tokens)) AS term
    FROM sizes AS s JOIN whole AS w ON w.layer = s.layer
    GROUP BY s.layer
)
SELECT w.layer, CAST(w.n AS BIGINT) AS choices, w.ids, w.conditional, m.entropy,
       CASE WHEN m.entropy > 0 THEN w.conditional / m.entropy END AS share,
       CASE WHEN m.entropy > 0
            THEN (d.term - coalesce(s.term, 0) - coalesce(a.term, 0)) / w.n / m.entropy END AS null_share
FROM whole AS w
JOIN marginal AS m ON m.layer = w.layer
LEFT JOIN dealt AS d ON d.layer = w.layer
LEFT JOIN summed AS s ON s.layer = w.layer
LEFT JOIN approached AS a ON a.layer = w.layer
ORDER BY w.layer;

-- token_specialisation: the expert that most often weighs most for one vocabulary item, for items seen `least` times or more,
--   share = n(id, expert) / n(id),  lift = share / (n(expert) / n)  over the best-weighted experts of the layer.
-- Runs that are in no pool are counted; with `most`, so many tokens' worth of runs alone (some_runs).
-- Source: vocabulary specialisation of OLMoE (Muennighoff et al. 2024).
CREATE OR REPLACE MACRO token_specialisation(run, least := 5, first := false, most := NULL) AS TABLE
WITH asked AS MATERIALIZED (
    SELECT coalesce(list(s.id), []) AS ids FROM some_runs(run, most) AS s
), changes AS MATERIALIZED (
    FROM top_changes((SELECT a.ids FROM asked AS a), first := first)
), pool AS MATERIALIZED (
    SELECT f.pool FROM pool_for((SELECT a.ids FROM asked AS a)) AS f
), kept AS (
    SELECT t.layer, t.token, t.tokens, t.best, t.experts, t.tops_of FROM token_pool AS t
    WHERE t.pool = (SELECT f.pool FROM pool AS f)
), fewer AS MATERIALIZED (
    SELECT DISTINCT c.layer, c.token FROM changes AS c WHERE c.tops < 0
), found AS (
    -- A row that lost nothing keeps its best expert unless a changed one passes it; in the others all are looked at.
    SELECT k.layer, k.token, k.tokens, CASE WHEN f.token IS NULL THEN k.best END AS best
    FROM kept AS k LEFT JOIN fewer AS f ON f.layer = k.layer AND f.token = k.token
    UNION ALL
    SELECT u.layer, u.token, 0, best_of(u.tops, u.expert)
    FROM (
        SELECT k.layer, k.token, unnest(k.experts) AS expert, unnest(k.tops_of) AS tops
        FROM kept AS k SEMI JOIN fewer AS f ON f.layer = k.layer AND f.token = k.token
    ) AS u
    ANTI JOIN changes AS c ON c.layer = u.layer AND c.token = u.token AND c.expert = u.expert
    UNION ALL
    SELECT c.layer, c.token, c.tops, best_of(coalesce(k.tops_of[list_position(k.experts, c.expert)], 0) + c.tops, c.expert)
    FROM changes AS c LEFT JOIN kept AS k ON k.layer = c.layer AND k.token = c.token
), of_token AS (
    SELECT f.layer, f.token, sum(f.tokens) AS tokens, max(f.best) AS best
    FROM found AS f
    GROUP BY f.layer, f.token
    HAVING sum(f.tokens) >= greatest(least, 1)
), of_expert AS (
    SELECT q.layer, q.expert, sum(q.tops) AS tokens, sum(sum(q.tops)) OVER (PARTITION BY q.layer) AS of_layer
    FROM (
        SELECT c.layer, c.expert, c.tops FROM changes AS c
        UNION ALL
        SELECT e.layer, e.expert, e.tops FROM expert_pool AS e WHERE e.pool = (SELECT f.pool FROM pool AS f)
    ) AS q
    GROUP BY q.layer, q.expert
), texts AS (
    SELECT t.token, any_value(t.text) AS text FROM token AS t
    WHERE t.run IN (SELECT unnest(a.ids) FROM asked AS a)
    GROUP BY t.token
)
SELECT b.layer, b.token, t.text, CAST(b.tokens AS BIGINT) AS tokens, e.expert, (b.best >> 16) / b.tokens AS share,
       (b.best >> 16) / b.tokens / (e.tokens / e.of_layer) AS lift
FROM of_token AS b
JOIN texts AS t ON t.token = b.token
JOIN of_expert AS e ON e.layer = b.layer AND e.expert = 65535 - (b.best & 65535)
ORDER BY b.layer, share DESC, tokens DESC, b.token;

-- token_specialisation_by_label: how the experts of a layer divide the values of a label of the tokens (`key` in token_label),
--   load  = n(e, v) / n(v),  share = n(e, v) / n(e),  lift = n(e, v) * n / (n(e) * n(v)),
-- as in specialisation, over the choices of the tokens that have the label.
-- Source: domain specialisation of OLMoE (Muennighoff et al. 2024), by token.
CREATE OR REPLACE MACRO token_specialisation_by_label(run, key, first := false) AS TABLE
WITH cells AS (
    SELECT c.layer, c.expert, c.value AS label, CAST(sum(c.choices) AS BIGINT) AS choices
    FROM label_totals(run, key) AS c
    WHERE first OR NOT c.opening
    GROUP BY c.layer, c.expert, c.value
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
