-- place_cells: choices by run, layer, expert and place in the sequence, in bins of 128 positions (place = position // 128),
--   choices = slots.
-- Source: sums over the rows of routing.
CREATE OR REPLACE MACRO place_cells(run) AS TABLE
SELECT s.run, s.layer, s.place, s.expert, s.opening, s.choices
FROM place_sum AS s WHERE s.run IN (SELECT unnest(run_ids(run)))
UNION ALL
SELECT r.run, r.layer, r.position // 128, r.expert, r.position = 0, count(*)
FROM routing AS r WHERE r.run IN (SELECT u.id FROM unsummarised(run) AS u)
GROUP BY r.run, r.layer, r.position // 128, r.expert, r.position = 0;

-- router_cells: what routers were like, by run, layer and place in the sequence (place = position // 128),
--   tokens = rows,  margin, entropy = sums over the margins, entropies rows that have one,
--   ties = ties among the told rows that say whether there was one,  dropped = sum over the counted rows that count it,
--   touched = those with a dropped slot.
-- Source: sums over the rows of router.
CREATE OR REPLACE MACRO router_cells(run) AS TABLE
SELECT s.run, s.layer, s.place, s.opening, s.tokens, s.margins, s.margin, s.entropies, s.entropy, s.told, s.ties, s.counted,
       s.dropped, s.touched
FROM router_sum AS s WHERE s.run IN (SELECT unnest(run_ids(run)))
UNION ALL
SELECT r.run, r.layer, r.position // 128, r.position = 0, count(*), count(r.margin), coalesce(sum(CAST(r.margin AS DOUBLE)), 0),
       count(r.entropy), coalesce(sum(CAST(r.entropy AS DOUBLE)), 0), count(r.tie), count(*) FILTER (r.tie), count(r.dropped),
       CAST(coalesce(sum(r.dropped), 0) AS BIGINT), count(*) FILTER (r.dropped > 0)
FROM router AS r WHERE r.run IN (SELECT u.id FROM unsummarised(run) AS u)
GROUP BY r.run, r.layer, r.position // 128, r.position = 0;

-- part_cells: sums by run, layer and column of contribution (`part`; 'tokens' counts the rows),
--   tokens = rows that have it,  total = sum over them.
-- Source: sums over the rows of contribution.
CREATE OR REPLACE MACRO part_cells(run) AS TABLE
SELECT s.run, s.layer, s.part, s.opening, s.tokens, s.total
FROM part_sum AS s WHERE s.run IN (SELECT unnest(run_ids(run)))
UNION ALL
SELECT q.run, q.layer, unnest(['tokens', 'attn_norm', 'attn_cos', 'mlp_norm', 'mlp_cos', 'block_norm', 'influence']), q.opening,
       unnest(q.counts), unnest(q.totals)
FROM (
    SELECT c.run, c.layer, c.position = 0 AS opening,
           [count(*), count(c.attn_norm), count(c.attn_cos), count(c.mlp_norm), count(c.mlp_cos), count(c.block_norm),
            count(c.influence)] AS counts,
           [NULL, sum(CAST(c.attn_norm AS DOUBLE)), sum(CAST(c.attn_cos AS DOUBLE)), sum(CAST(c.mlp_norm AS DOUBLE)),
            sum(CAST(c.mlp_cos AS DOUBLE)), sum(CAST(c.block_norm AS DOUBLE)), sum(CAST(c.influence AS DOUBLE))] AS totals
    FROM contribution AS c WHERE c.run IN (SELECT u.id FROM unsummarised(run) AS u)
    GROUP BY c.run, c.layer, c.position = 0
) AS q;

-- sparsity_cells: sums by run, layer, expert (-1 is a dense MLP) and threshold,
--   activations = rows,  width = sum of neurons,  zero = sum of width * zero_share,  below = sum of width * below_share,
--   hoyer = sum over the hoyers rows that have one.
-- Source: sums over the rows of sparsity.
CREATE OR REPLACE MACRO sparsity_cells(run) AS TABLE
SELECT s.run, s.layer, s.expert, s.threshold, s.opening, s.activations, s.width, s.zero, s.below, s.hoyers, s.hoyer
FROM sparsity_sum AS s WHERE s.run IN (SELECT unnest(run_ids(run)))
UNION ALL
SELECT r.run, r.layer, r.expert, r.threshold, r.position = 0, count(*), CAST(sum(r.width) AS BIGINT),
       sum(r.width * CAST(r.zero_share AS DOUBLE)), sum(r.width * CAST(r.below_share AS DOUBLE)), count(r.hoyer),
       sum(CAST(r.hoyer AS DOUBLE))
FROM sparsity AS r WHERE r.run IN (SELECT u.id FROM unsummarised(run) AS u)
GROUP BY r.run, r.layer, r.expert, r.threshold, r.position = 0;

-- some_runs: those of `run` that a question reads when it need not read all: in an order drawn by md5 of their ids, until they
-- hold `most` tokens (all of them where it is NULL; at least one),
--   id with  sum of tokens of the runs before it < most.
-- Source: a random draw of whole runs, the same on every machine: tokens of one text are no independent draws.
CREATE OR REPLACE MACRO some_runs(run, most) AS TABLE
SELECT q.id
FROM (
    SELECT u.id, coalesce(sum(i.tokens) OVER (
               ORDER BY md5(CAST(u.id AS VARCHAR)), u.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
           ), 0) AS before
    FROM (SELECT DISTINCT unnest(run_ids(run)) AS id) AS u LEFT JOIN run AS i ON i.run = u.id
) AS q
WHERE most IS NULL OR q.before < most;
