-- routing_map: one row a position and layer with what a map of the run shows.  Where a position was computed in
-- several steps the last one stands,
--   top = expert of rank 0,  experts, weights = lists in slot order,  margin, entropy, tie, edited, native = those of `router`.
-- Source: the rows of routing and router as recorded.
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
