-- routing_map: one row a position and layer with what a map of the run shows.  Where a position was computed in
-- several steps the last one stands,
--   top = expert of rank 0,  experts, weights = lists in slot order,  margin, entropy, tie, edited, native = those of `router`.
-- Source: the rows of routing and router as recorded.
CREATE OR REPLACE MACRO routing_map(run) AS TABLE
WITH latest AS (
    -- Sorting structs that begin with the slot is several times cheaper than two lists with ORDER BY.
    SELECT r.run, r.position, r.layer, r.step, arg_min(r.expert, r.rank) AS top,
           list_sort(list({'slot': r.slot, 'expert': r.expert, 'weight': r.weight})) AS slots
    FROM routing AS r
    WHERE r.run IN (SELECT unnest(run_ids(run)))
    GROUP BY r.run, r.position, r.layer, r.step
    QUALIFY r.step = max(r.step) OVER (PARTITION BY r.run, r.position, r.layer)
)
SELECT l.run, l.position, l.layer, l.step, l.top, list_transform(l.slots, lambda x: x.expert) AS experts,
       list_transform(l.slots, lambda x: x.weight) AS weights, q.margin, q.entropy, q.tie, q.edited, q.native
FROM latest AS l
LEFT JOIN router AS q ON q.run = l.run AND q.step = l.step AND q.position = l.position AND q.layer = l.layer
ORDER BY l.run, l.position, l.layer;

-- cell: everything recorded about one position and layer of one run, one row an expert: every expert where scores were
-- recorded, else those chosen and those the model alone would have chosen,
--   chosen = has a slot,  native = among the choices of the model alone,  native_weight = its weight there,
--   score, logit = those of `router_scores`,  margin, entropy, tie, edited = those of `router`.
-- Source: the rows of routing, router and router_scores as recorded.
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

-- choice_tiles: the choices of one run (one id) at a level of detail: tokens from `begin` up to, not including, `stop` in columns
-- of `width` tokens, one row a layer and column that was recorded,
--   expert = the one most often of rank 0 (of equals the lowest),  share = its share of the column's tokens,
--   weight = mean weight of rank 0,  tokens = recorded tokens of the column.
-- Source: level of detail by aggregation, as a map at any zoom needs it; width 1 gives the choices of rank 0 themselves.
CREATE OR REPLACE MACRO choice_tiles(run, begin, stop, width) AS TABLE
WITH counted AS (
    SELECT r.layer, r.position // width AS place, r.expert, count(*) AS tokens, sum(r.weight) AS weight
    FROM routing AS r
    WHERE r.run = run AND r.rank = 0 AND r.position >= begin AND r.position < stop
    GROUP BY r.layer, place, r.expert
), packed AS (
    -- One integer for (tokens, expert): its maximum is the most frequent expert, of equals the lowest.
    SELECT c.layer, c.place, max(c.tokens * 65536 + 65535 - c.expert) AS most, sum(c.tokens) AS tokens,
           sum(c.weight) AS weight
    FROM counted AS c
    GROUP BY c.layer, c.place
)
SELECT p.layer, p.place * width AS position, CAST(65535 - p.most % 65536 AS INTEGER) AS expert,
       (p.most // 65536) / p.tokens AS share, p.weight / p.tokens AS weight, p.tokens
FROM packed AS p;

-- router_tiles: margins and entropies of one run (one id) at a level of detail, columns as in choice_tiles,
--   margin, entropy = means over the column's tokens,  edited = share of them whose choice an edit changed.
-- Source: means of the rows of router as recorded.
CREATE OR REPLACE MACRO router_tiles(run, begin, stop, width) AS TABLE
SELECT r.layer, (r.position // width) * width AS position, avg(r.margin) AS margin, avg(r.entropy) AS entropy,
       avg(CAST(r.edited AS INTEGER)) AS edited
FROM router AS r
WHERE r.run = run AND r.position >= begin AND r.position < stop
GROUP BY r.layer, r.position // width;

-- part_tiles: what blocks add, and how sparse their activations are, of one run (one id) at a level of detail, columns as in
-- choice_tiles,
--   influence, contribution = means of influence and block_norm of contribution,  sparsity = mean zero_share of sparsity.
-- Source: means of the rows of contribution and sparsity as recorded.
CREATE OR REPLACE MACRO part_tiles(run, begin, stop, width) AS TABLE
WITH parts AS (
    SELECT c.layer, c.position // width AS place, avg(c.influence) AS influence, avg(c.block_norm) AS contribution
    FROM contribution AS c
    WHERE c.run = run AND c.position >= begin AND c.position < stop
    GROUP BY c.layer, place
), zeros AS (
    SELECT s.layer, s.position // width AS place, avg(s.zero_share) AS sparsity
    FROM sparsity AS s
    WHERE s.run = run AND s.position >= begin AND s.position < stop
    GROUP BY s.layer, place
)
SELECT coalesce(p.layer, z.layer) AS layer, coalesce(p.place, z.place) * width AS position, p.influence, p.contribution,
       z.sparsity
FROM parts AS p
FULL JOIN zeros AS z ON z.layer = p.layer AND z.place = p.place;

-- flip_tiles: where two runs (one id each) choose differently at the same position, at a level of detail, columns as in
-- choice_tiles,
--   flip = share of the column's tokens, recorded in both, whose SETS of experts differ.
-- Source: as flips_aligned, position by position; a set is compared by the sum of the hashes of its members.
CREATE OR REPLACE MACRO flip_tiles(base, run, begin, stop, width) AS TABLE
WITH before AS (
    SELECT r.layer, r.position, sum(hash(r.expert)) AS chosen
    FROM routing AS r
    WHERE r.run = base AND r.position >= begin AND r.position < stop
    GROUP BY r.layer, r.position
), after AS (
    SELECT r.layer, r.position, sum(hash(r.expert)) AS chosen
    FROM routing AS r
    WHERE r.run = run AND r.position >= begin AND r.position < stop
    GROUP BY r.layer, r.position
)
SELECT a.layer, (a.position // width) * width AS position, avg(CAST(a.chosen <> b.chosen AS INTEGER)) AS flip
FROM after AS a
JOIN before AS b ON b.layer = a.layer AND b.position = a.position
GROUP BY a.layer, a.position // width;

-- lane_tiles: how the choices of one layer of one run (one id) are spread over its experts at a level of detail, columns as in
-- choice_tiles, one row an expert and column in which it was chosen,
--   share = tokens that chose the expert / tokens of the column.
-- Source: the load of Switch Transformers (Fedus, Zoph, Shazeer 2022), column by column.
CREATE OR REPLACE MACRO lane_tiles(run, at_layer, begin, stop, width) AS TABLE
SELECT r.expert, (r.position // width) * width AS position, count(*) / least(width, stop - (r.position // width) * width) AS share
FROM routing AS r
WHERE r.run = run AND r.layer = at_layer AND r.position >= begin AND r.position < stop
GROUP BY r.expert, r.position // width;
