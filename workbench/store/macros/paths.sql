-- coactivation: pairs of experts (expert < other) that one token chose together in one layer,
--   probability = n(a, b) / n,  lift = n(a, b) * n / (n(a) * n(b)),  jaccard = n(a, b) / (n(a) + n(b) - n(a, b)),
-- with n tokens of that layer.  Lift 1 is independence.
-- Source: expert co-activation of OLMoE (Muennighoff et al. 2024), with lift from association rules.
CREATE OR REPLACE MACRO coactivation(run, first := false) AS TABLE
WITH pair AS (
    SELECT s.layer, s.expert, s.other, CAST(sum(s.tokens) AS BIGINT) AS tokens
    FROM pair_totals(run) AS s
    WHERE first OR NOT s.opening
    GROUP BY s.layer, s.expert, s.other
), whole AS (
    SELECT n.layer, CAST(sum(n.tokens) AS BIGINT) AS tokens FROM layer_cells(run) AS n WHERE first OR NOT n.opening
    GROUP BY n.layer
)
SELECT p.layer, p.expert, p.other, p.tokens, p.tokens / w.tokens AS probability,
       CAST(p.tokens AS DOUBLE) * w.tokens / (CAST(a.tokens AS DOUBLE) * b.tokens) AS lift,
       p.tokens / (a.tokens + b.tokens - p.tokens) AS jaccard
FROM pair AS p
JOIN pair AS a ON a.layer = p.layer AND a.expert = p.expert AND a.other = p.expert
JOIN pair AS b ON b.layer = p.layer AND b.expert = p.other AND b.other = p.other
JOIN whole AS w ON w.layer = p.layer
WHERE p.expert < p.other
ORDER BY p.layer, p.expert, p.other;

-- expert_affinity: from the experts of one routed layer to those of the next routed layer of the same token,
--   tokens = n(e at l and e' at l'),  probability = n(e at l and e' at l') / n(e at l).
-- Source: inter-layer expert affinity of ExFlow (Yao et al. 2024), for any k.
CREATE OR REPLACE MACRO expert_affinity(run, first := false) AS TABLE
WITH single AS (
    SELECT s.layer, s.expert, sum(s.sets) AS tokens
    FROM expert_cells(run) AS s
    WHERE first OR NOT s.opening
    GROUP BY s.layer, s.expert
), pair AS (
    SELECT q.layer, q.next_layer, q.expert, q.next_expert, CAST(sum(q.tokens) AS BIGINT) AS tokens
    FROM next_totals(run) AS q
    WHERE first OR NOT q.opening
    GROUP BY q.layer, q.next_layer, q.expert, q.next_expert
)
SELECT p.layer, p.next_layer, p.expert, p.next_expert, p.tokens, p.tokens / s.tokens AS probability
FROM pair AS p JOIN single AS s ON s.layer = p.layer AND s.expert = p.expert
ORDER BY p.layer, p.expert, p.next_expert;

-- chunk_sparsity: experts that C consecutive tokens use together, over every full chunk of positions iC+1 .. (i+1)C
-- (from position 0 with first := true) of one step,
--   union_share = mean over chunks of |union of choices| / E,
--   null_share  = mean over experts of 1 - (1 - p_e)^C,  p_e the share of the tokens that chose e: the union that tokens
--                 of the same popularity, drawn independently, would have.  Below it, neighbours share experts.
-- E is num_experts of the run row, or the experts seen where that is not known.
-- Source: chunk-level sparsity of BlockFFN (Song et al. 2025), with its complement and a popularity-aware null.
CREATE OR REPLACE MACRO chunk_sparsity(run, chunk := 8, first := false) AS TABLE
WITH picks AS (
    -- Chunks of 8 are among the kept sums; others are counted in the rows.
    SELECT DISTINCT r.run, r.step, r.layer, r.position, r.expert,
           (r.position - CASE WHEN first THEN 0 ELSE 1 END) // chunk AS piece
    FROM routing AS r
    WHERE r.run IN (SELECT q.id FROM (SELECT unnest(run_ids(run)) AS id) AS q WHERE chunk <> 8) AND (first OR r.position > 0)
), size AS (
    SELECT l.layer, count(*) AS experts FROM expert_load(run, first := first) AS l GROUP BY l.layer
), unions AS (
    SELECT q.layer, count(*) AS chunks, sum(q.used) AS used
    FROM (
        SELECT p.layer, count(DISTINCT p.expert) AS used
        FROM picks AS p
        GROUP BY p.run, p.step, p.layer, p.piece
        HAVING count(DISTINCT p.position) = chunk
    ) AS q
    GROUP BY q.layer
    UNION ALL
    SELECT n.layer, sum(n.chunks), sum(n.used) FROM layer_cells(run) AS n
    WHERE chunk = 8 AND n.opening = first
    GROUP BY n.layer HAVING sum(n.chunks) > 0
), popularity AS (
    SELECT p.layer, p.expert, sum(p.sets) AS tokens FROM expert_cells(run) AS p WHERE first OR NOT p.opening
    GROUP BY p.layer, p.expert
), whole AS (
    SELECT n.layer, sum(n.tokens) AS tokens FROM layer_cells(run) AS n WHERE first OR NOT n.opening GROUP BY n.layer
), expected AS (
    SELECT q.layer, sum(1 - pow(1 - q.tokens / w.tokens, chunk)) AS used
    FROM popularity AS q JOIN whole AS w ON w.layer = q.layer
    GROUP BY q.layer
)
SELECT u.layer, CAST(u.chunks AS BIGINT) AS chunks, u.used / u.chunks / z.experts AS union_share,
       x.used / z.experts AS null_share, 1 - u.used / u.chunks / z.experts AS sparsity
FROM unions AS u JOIN size AS z ON z.layer = u.layer JOIN expected AS x ON x.layer = u.layer
ORDER BY u.layer;

-- route_repetition: share of tokens that keep something of the choice of the token before them, in the same run and layer,
--   first_choice = share whose highest-weighted expert is the same,  overlap = share with any expert in common,
--   expected = sum_e p_e^2 with p_e the share of tokens whose first choice is e: repetition of independent tokens.
-- Source: repeated assignments of Mixtral (Jiang et al. 2024), with a popularity-aware chance level.
CREATE OR REPLACE MACRO route_repetition(run, first := false) AS TABLE
WITH pairs AS (
    SELECT n.layer, CAST(sum(n.followers) AS BIGINT) AS tokens, sum(n.same) AS same, sum(n.overlap) AS overlap
    FROM layer_cells(run) AS n
    WHERE first OR NOT n.opening
    GROUP BY n.layer
), tops AS (
    SELECT s.layer, s.expert, sum(s.tops) AS tokens, sum(sum(s.tops)) OVER (PARTITION BY s.layer) AS of_layer
    FROM expert_cells(run) AS s
    WHERE first OR NOT s.opening
    GROUP BY s.layer, s.expert
), chance AS (
    SELECT t.layer, sum(pow(t.tokens / t.of_layer, 2)) AS expected FROM tops AS t GROUP BY t.layer
)
SELECT p.layer, p.tokens, p.same / p.tokens AS first_choice, p.overlap / p.tokens AS overlap, c.expected
FROM pairs AS p JOIN chance AS c ON c.layer = p.layer
WHERE p.tokens > 0
ORDER BY p.layer;

-- path_counts: the ways tokens take through the network by the best-weighted expert of every routed layer,
--   share = n(path) / n,  expected = prod_l p_l(e_l)  if layers chose independently,  lift = share / expected.
-- Tokens that miss a layer are left out.
-- With `most`, over so many tokens' worth of runs alone (some_runs): every token is read.
-- Source: expert paths of ExFlow (Yao et al. 2024).
CREATE OR REPLACE MACRO path_counts(run, first := false, most := NULL) AS TABLE
WITH ways AS (
    -- One number a step of the path, layer before expert: numbers sort many times faster than a list with ORDER BY.
    SELECT list_sort(list(CAST(r.layer AS INTEGER) * 65536 + r.expert)) AS packed
    FROM top_cells((SELECT coalesce(list(s.id), []) FROM some_runs(run, most) AS s)) AS r
    WHERE first OR r.position > 0
    GROUP BY r.run, r.step, r.position
), counted AS (
    SELECT w.packed, len(w.packed) AS layers, count(*) AS tokens, row_number() OVER () AS id FROM ways AS w GROUP BY w.packed
), steps AS (
    SELECT c.id, unnest(c.packed) AS place, c.layers, c.tokens FROM counted AS c
), whole AS (
    SELECT count(DISTINCT s.place // 65536) AS layers FROM steps AS s
), single AS (
    SELECT s.place, ln(sum(s.tokens) / sum(sum(s.tokens)) OVER (PARTITION BY s.place // 65536)) AS lnp
    FROM steps AS s
    WHERE s.layers = (SELECT w.layers FROM whole AS w)
    GROUP BY s.place
), expected AS (
    SELECT s.id, exp(sum(q.lnp)) AS p
    FROM steps AS s JOIN single AS q ON q.place = s.place
    WHERE s.layers = (SELECT w.layers FROM whole AS w)
    GROUP BY s.id
), chance AS (
    SELECT c.packed, c.tokens, sum(c.tokens) OVER () AS of_all, e.p AS expected
    FROM counted AS c JOIN expected AS e ON e.id = c.id
)
SELECT list_transform(c.packed, lambda x: CAST(x % 65536 AS USMALLINT)) AS path, c.tokens, c.tokens / c.of_all AS share,
       c.expected, c.tokens / c.of_all / c.expected AS lift
FROM chance AS c
ORDER BY c.tokens DESC, path;

-- path_summary: how many of those ways are in use, and how far one layer's choice fixes the others',
--   entropy = - sum_path p ln p,  effective = exp(entropy),  independent = sum over layers of the entropy of its best expert,
--   correlation = independent - entropy  (0 for independent layers; biased upwards where paths are seldom seen twice).
-- With `most`, over so many tokens' worth of runs alone (some_runs): every token is read.
-- Source: total correlation (Watanabe 1960) over the paths of ExFlow (Yao et al. 2024).
CREATE OR REPLACE MACRO path_summary(run, first := false, most := NULL) AS TABLE
WITH ways AS (
    SELECT p.path, p.tokens, p.share FROM path_counts(run, first := first, most := most) AS p
), single AS (
    SELECT q.place, q.expert, sum(q.share) AS p
    FROM (SELECT unnest(w.path) AS expert, unnest(range(len(w.path))) AS place, w.share FROM ways AS w) AS q
    GROUP BY q.place, q.expert
), whole AS (
    SELECT CAST(sum(w.tokens) AS BIGINT) AS tokens, count(*) AS paths, -sum(w.share * ln(w.share)) AS entropy,
           max(w.share) AS largest
    FROM ways AS w
)
SELECT w.tokens, w.paths, w.entropy, exp(w.entropy) AS effective, w.largest,
       (SELECT -sum(s.p * ln(s.p)) FROM single AS s) AS independent,
       (SELECT -sum(s.p * ln(s.p)) FROM single AS s) - w.entropy AS correlation
FROM whole AS w
WHERE w.paths > 0;

-- layer_information: how much the best expert of one layer says about the best expert of another (layer < other),
--   information = sum p(a, b) ln( p(a, b) / (p(a) p(b)) ),  share = information / min(H(a), H(b)).
-- Source: redundancy of layer-wise routers of Read-ME (Cai et al. 2024), by the mutual information of Shannon.
CREATE OR REPLACE MACRO layer_information(run, first := false) AS TABLE
WITH cells AS (
    SELECT q.layer, q.other_layer AS other, q.expert, q.other_expert, CAST(sum(q.tokens) AS DOUBLE) AS n
    FROM across_totals(run) AS q
    WHERE first OR NOT q.opening
    GROUP BY q.layer, q.other_layer, q.expert, q.other_expert
), pair AS (
    SELECT c.layer, c.other, sum(c.n) AS n, sum(c.n * ln(c.n)) AS nlnn
    FROM cells AS c
    GROUP BY c.layer, c.other
), heres AS (
    SELECT q.layer, q.other, sum(q.n * ln(q.n)) AS nlnn
    FROM (
        SELECT c.layer, c.other, sum(c.n) AS n FROM cells AS c GROUP BY c.layer, c.other, c.expert
    ) AS q
    GROUP BY q.layer, q.other
), theres AS (
    SELECT q.layer, q.other, sum(q.n * ln(q.n)) AS nlnn
    FROM (
        SELECT c.layer, c.other, sum(c.n) AS n FROM cells AS c GROUP BY c.layer, c.other, c.other_expert
    ) AS q
    GROUP BY q.layer, q.other
), sums AS (
    -- H = ln n - (sum n_i ln n_i) / n, and the information is H(a) + H(b) - H(a, b).
    SELECT p.layer, p.other, p.n, greatest(0, ln(p.n) + (p.nlnn - a.nlnn - b.nlnn) / p.n) AS information,
           ln(p.n) - a.nlnn / p.n AS entropy, ln(p.n) - b.nlnn / p.n AS other_entropy
    FROM pair AS p
    JOIN heres AS a ON a.layer = p.layer AND a.other = p.other
    JOIN theres AS b ON b.layer = p.layer AND b.other = p.other
)
SELECT s.layer, s.other, CAST(s.n AS BIGINT) AS tokens, s.information,
       CASE WHEN least(s.entropy, s.other_entropy) > 1e-12
            THEN s.information / least(s.entropy, s.other_entropy) END AS share
FROM sums AS s
ORDER BY s.layer, s.other;

-- lookahead: how much of the next routed layer's choice can be fetched ahead, knowing this layer's best expert only.
-- The k experts that follow it most often (k the size of the choice) are learnt on even positions and tried on odd ones,
--   recall = mean |predicted and chosen| / |chosen|,  baseline = the same for the k most popular experts of that layer.
-- Source: look-ahead prefetching as in Pre-gated MoE (Hwang et al. 2024) and Read-ME (Cai et al. 2024).
CREATE OR REPLACE MACRO lookahead(run, first := false) AS TABLE
WITH cells AS (
    SELECT q.layer, q.next_layer, q.expert AS top, q.next_expert AS expert, sum(q.seen) AS seen, sum(q.tried) AS tried
    FROM next_totals(run) AS q
    WHERE first OR NOT q.opening
    GROUP BY q.layer, q.next_layer, q.expert, q.next_expert
), whole AS (
    -- Every choice set tried adds its parts 1 / |set| to one in all.
    SELECT c.layer, sum(c.tried) AS tokens FROM cells AS c GROUP BY c.layer HAVING sum(c.tried) > 0
), size AS (
    SELECT f.layer, max(z.rank) + 1 AS k
    FROM (SELECT DISTINCT c.layer, c.next_layer FROM cells AS c) AS f JOIN rank_cells(run) AS z ON z.layer = f.next_layer
    GROUP BY f.layer
), placed AS (
    SELECT c.layer, c.tried, c.seen,
           row_number() OVER (PARTITION BY c.layer, c.top ORDER BY c.seen DESC, c.expert) AS place
    FROM cells AS c
), popular AS (
    SELECT q.layer, q.tried, q.seen, row_number() OVER (PARTITION BY q.layer ORDER BY q.seen DESC, q.expert) AS place
    FROM (SELECT c.layer, c.expert, sum(c.seen) AS seen, sum(c.tried) AS tried FROM cells AS c GROUP BY c.layer, c.expert) AS q
), found AS (
    SELECT p.layer, sum(p.tried) AS tried
    FROM placed AS p JOIN size AS z ON z.layer = p.layer WHERE p.place <= z.k AND p.seen > 0 GROUP BY p.layer
), base AS (
    SELECT p.layer, sum(p.tried) AS tried
    FROM popular AS p JOIN size AS z ON z.layer = p.layer WHERE p.place <= z.k AND p.seen > 0 GROUP BY p.layer
)
SELECT w.layer, CAST(round(w.tokens) AS BIGINT) AS tokens, coalesce(f.tried, 0) / w.tokens AS recall,
       coalesce(b.tried, 0) / w.tokens AS baseline
FROM whole AS w LEFT JOIN found AS f ON f.layer = w.layer LEFT JOIN base AS b ON b.layer = w.layer
ORDER BY w.layer;
