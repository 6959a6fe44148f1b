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
--   null_share = the same with the ids dealt anew among the tokens, in the order of md5('run:position'): a rare id fixes
--                its experts by being rare, and this is how much.
-- With `most`, over so many tokens' worth of runs alone (some_runs): a scan of every choice is what it takes.
-- Source: context-independent specialisation of OpenMoE (Xue et al. 2024), with a frequency-matched null.
CREATE OR REPLACE MACRO context_independence(run, first := false, most := NULL) AS TABLE
WITH ids AS (
    SELECT t.run, t.position, arg_max(t.token, t.step) AS token
    FROM token AS t
    WHERE t.run IN (SELECT s.id FROM some_runs(run, most) AS s) AND (first OR t.position > 0)
    GROUP BY t.run, t.position
), numbered AS (
    SELECT i.run, i.position, i.token, row_number() OVER (ORDER BY i.run, i.position) AS here,
           row_number() OVER (ORDER BY md5(concat(i.run, ':', i.position)), i.run, i.position) AS there
    FROM ids AS i
), dealt AS (
    SELECT a.run, a.position, a.token, b.token AS other FROM numbered AS a JOIN numbered AS b ON b.there = a.here
), joined AS (
    SELECT r.layer, r.expert, d.token, d.other
    FROM routing AS r JOIN dealt AS d ON d.run = r.run AND d.position = r.position
    WHERE r.run IN (SELECT s.id FROM some_runs(run, most) AS s)
), cells AS (
    SELECT true AS observed, j.layer, j.expert, j.token, count(*) AS n FROM joined AS j GROUP BY j.layer, j.expert, j.token
    UNION ALL
    SELECT false, j.layer, j.expert, j.other, count(*) FROM joined AS j GROUP BY j.layer, j.expert, j.other
), of_token AS (
    SELECT c.observed, c.layer, sum(c.n) AS n, sum(c.n * ln(c.n)) - sum(c.n) * ln(sum(c.n)) AS term
    FROM cells AS c
    GROUP BY c.observed, c.layer, c.token
), conditional AS (
    SELECT t.layer, count(*) FILTER (t.observed) AS ids, sum(t.n) FILTER (t.observed) AS n,
           -(sum(t.term) FILTER (t.observed)) / (sum(t.n) FILTER (t.observed)) AS conditional,
           -(sum(t.term) FILTER (NOT t.observed)) / (sum(t.n) FILTER (NOT t.observed)) AS null_conditional
    FROM of_token AS t
    GROUP BY t.layer
), marginal AS (
    SELECT q.layer, ln(sum(q.n)) - sum(q.n * ln(q.n)) / sum(q.n) AS entropy
    FROM (SELECT c.layer, sum(c.n) AS n FROM cells AS c WHERE c.observed GROUP BY c.layer, c.expert) AS q
    GROUP BY q.layer
)
SELECT c.layer, CAST(c.n AS BIGINT) AS choices, c.ids, c.conditional, m.entropy,
       CASE WHEN m.entropy > 0 THEN c.conditional / m.entropy END AS share,
       CASE WHEN m.entropy > 0 THEN c.null_conditional / m.entropy END AS null_share
FROM conditional AS c JOIN marginal AS m ON m.layer = c.layer
ORDER BY c.layer;

-- token_specialisation: the expert that most often weighs most for one vocabulary item, for items seen `least` times or more,
--   share = n(id, expert) / n(id),  lift = share / (n(expert) / n)  over the best-weighted experts of the layer.
-- With `most`, over so many tokens' worth of runs alone (some_runs): a scan of every choice is what it takes.
-- Source: vocabulary specialisation of OLMoE (Muennighoff et al. 2024).
CREATE OR REPLACE MACRO token_specialisation(run, least := 5, first := false, most := NULL) AS TABLE
WITH ids AS (
    SELECT t.run, t.position, arg_max(t.token, t.step) AS token, arg_max(t.text, t.step) AS text
    FROM token AS t
    WHERE t.run IN (SELECT s.id FROM some_runs(run, most) AS s) AND (first OR t.position > 0)
    GROUP BY t.run, t.position
), cells AS (
    SELECT r.layer, i.token, any_value(i.text) AS text, r.expert, count(*) AS n
    FROM routing AS r JOIN ids AS i ON i.run = r.run AND i.position = r.position
    WHERE r.rank = 0 AND r.run IN (SELECT s.id FROM some_runs(run, most) AS s)
    GROUP BY r.layer, i.token, r.expert
), sums AS (
    SELECT c.layer, c.token, c.text, c.expert, c.n,
           sum(c.n) OVER (PARTITION BY c.layer, c.token) AS of_token,
           sum(c.n) OVER (PARTITION BY c.layer, c.expert) AS of_expert, sum(c.n) OVER (PARTITION BY c.layer) AS of_layer
    FROM cells AS c
)
SELECT s.layer, s.token, s.text, CAST(s.of_token AS BIGINT) AS tokens, s.expert, s.n / s.of_token AS share,
       s.n / s.of_token / (s.of_expert / s.of_layer) AS lift
FROM sums AS s
WHERE s.of_token >= least
QUALIFY row_number() OVER (PARTITION BY s.layer, s.token ORDER BY s.n DESC, s.expert) = 1
ORDER BY s.layer, share DESC, tokens DESC, s.token;

-- token_specialisation_by_label: how the experts of a layer divide the values of a label of the tokens (`key` in token_label),
--   load  = n(e, v) / n(v),  share = n(e, v) / n(e),  lift = n(e, v) * n / (n(e) * n(v)),
-- as in specialisation, over the choices of the tokens that have the label.
-- With `most`, over so many tokens' worth of runs alone (some_runs): a scan of every choice is what it takes.
-- Source: domain specialisation of OLMoE (Muennighoff et al. 2024), by token.
CREATE OR REPLACE MACRO token_specialisation_by_label(run, key, first := false, most := NULL) AS TABLE
WITH cells AS (
    SELECT r.layer, r.expert, t.value AS label, count(*) AS choices
    FROM routing AS r JOIN token_label AS t ON t.run = r.run AND t.position = r.position
    WHERE r.run IN (SELECT s.id FROM some_runs(run, most) AS s) AND (first OR r.position > 0) AND t.label = key
      AND t.value IS NOT NULL
    GROUP BY r.layer, r.expert, t.value
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
