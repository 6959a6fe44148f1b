-- whole_blocks: blocks of runs whose every run is among `run` (one id or a list); with `only_large`, large ones alone,
--   block = the smallest of its runs.
-- Source: bookkeeping of this store.
CREATE OR REPLACE MACRO whole_blocks(run, only_large := false) AS TABLE
SELECT b.block FROM block_run AS b
WHERE NOT only_large OR b.large
GROUP BY b.block
HAVING bool_and(b.run IN (SELECT unnest(run_ids(run))));

-- runs_outside: those of `run` (one id or a list) that are in no whole block; with `only_large`, in no large one,
--   ids of `run` less the runs of whole_blocks(run).
-- Source: bookkeeping of this store.
CREATE OR REPLACE MACRO runs_outside(run, only_large := false) AS TABLE
SELECT q.id FROM (SELECT DISTINCT unnest(run_ids(run)) AS id) AS q
WHERE q.id NOT IN (
    SELECT b.run FROM block_run AS b WHERE b.block IN (SELECT w.block FROM whole_blocks(run, only_large := only_large) AS w)
);

-- pair_totals: tokens that chose two experts of a layer together, several rows a pair,
--   tokens = as in pair_cells, of whole blocks of runs where there are such, else of single runs.
-- Source: sums over the rows of routing.
CREATE OR REPLACE MACRO pair_totals(run) AS TABLE
SELECT b.layer, b.expert, b.other, b.opening, b.tokens
FROM pair_block AS b WHERE b.block IN (SELECT w.block FROM whole_blocks(run) AS w)
UNION ALL
SELECT c.layer, c.expert, c.other, c.opening, c.tokens
FROM pair_cells((SELECT coalesce(list(o.id), []) FROM runs_outside(run) AS o)) AS c;

-- next_totals: from the choice of a token in one routed layer to its choice in the next, several rows a pair,
--   tokens, seen, tried = as in next_cells, of whole blocks of runs where there are such, else of single runs.
-- Source: sums over the rows of routing.
CREATE OR REPLACE MACRO next_totals(run) AS TABLE
SELECT b.layer, b.next_layer, b.expert, b.next_expert, b.opening, b.tokens, b.seen, b.tried
FROM next_block AS b WHERE b.block IN (SELECT w.block FROM whole_blocks(run) AS w)
UNION ALL
SELECT c.layer, c.next_layer, c.expert, c.next_expert, c.opening, c.tokens, c.seen, c.tried
FROM next_cells((SELECT coalesce(list(o.id), []) FROM runs_outside(run) AS o)) AS c;

-- place_totals: choices by layer, expert and place in the sequence (place = position // 128), several rows a place,
--   choices = as in place_cells, of whole blocks of runs where there are such, else of single runs.
-- Source: sums over the rows of routing.
CREATE OR REPLACE MACRO place_totals(run) AS TABLE
SELECT b.layer, b.place, b.expert, b.opening, b.choices
FROM place_block AS b WHERE b.block IN (SELECT w.block FROM whole_blocks(run) AS w)
UNION ALL
SELECT c.layer, c.place, c.expert, c.opening, c.choices
FROM place_cells((SELECT coalesce(list(o.id), []) FROM runs_outside(run) AS o)) AS c;

-- across_totals: the best expert of one layer with the best expert of every later layer of the same token and step, several
-- rows a pair,
--   tokens = choice sets in which expert has rank 0 at layer and other_expert at other_layer, of large blocks of runs where
--   there are such, else counted.
-- Source: sums over the rows of routing.
CREATE OR REPLACE MACRO across_totals(run) AS TABLE
SELECT b.layer, b.other_layer, b.expert, b.other_expert, b.opening, b.tokens
FROM across_block AS b WHERE b.block IN (SELECT w.block FROM whole_blocks(run, only_large := true) AS w)
UNION ALL
SELECT CAST(q.here >> 16 AS USMALLINT), CAST(q.there >> 16 AS USMALLINT), CAST(q.here & 65535 AS USMALLINT),
       CAST(q.there & 65535 AS USMALLINT), q.opening, count(*)
FROM (
    -- Two unnests of a list are cheaper than joining the layers of a token with themselves.
    SELECT o.opening, o.here, unnest(o.packed) AS there
    FROM (
        SELECT w.opening, unnest(w.packed) AS here, w.packed
        FROM (
            -- One number a layer, layer before expert: a larger number is a later layer.
            SELECT t.position = 0 AS opening, list(CAST(t.layer AS UINTEGER) << 16 | t.expert) AS packed
            FROM top_cells((SELECT coalesce(list(u.id), []) FROM runs_outside(run, only_large := true) AS u)) AS t
            GROUP BY t.run, t.step, t.position
        ) AS w
    ) AS o
) AS q
WHERE q.there >> 16 > q.here >> 16
GROUP BY q.here, q.there, q.opening;

-- label_marks: how the labels of the tokens of whole large blocks stand now,
--   mark = sum of the hashes of (run, position, value) modulo 2^64, by block and label.
-- Source: bookkeeping of this store.
CREATE OR REPLACE MACRO label_marks(run) AS TABLE
SELECT b.block, t.label, CAST(sum(hash(t.run, t.position, t.value)) % 18446744073709551616::HUGEINT AS UBIGINT) AS mark
FROM token_label AS t JOIN block_run AS b ON b.run = t.run
WHERE b.block IN (SELECT w.block FROM whole_blocks(run, only_large := true) AS w)
GROUP BY b.block, t.label;

-- label_totals: choices by layer, expert and value of a label of the tokens (`key` in token_label), several rows each,
--   choices = slots at positions with that value, of large blocks of runs whose labels are those that were summed, else counted.
-- Source: sums over the rows of routing and token_label.
CREATE OR REPLACE MACRO label_totals(run, key) AS TABLE
WITH kept AS (
    SELECT l.block FROM block_label AS l
    JOIN label_marks(run) AS m ON m.block = l.block AND m.label = l.label AND m.mark = l.mark
    WHERE l.label = key
), others AS (
    SELECT q.id FROM (SELECT DISTINCT unnest(run_ids(run)) AS id) AS q
    WHERE q.id NOT IN (SELECT b.run FROM block_run AS b WHERE b.block IN (SELECT k.block FROM kept AS k))
)
SELECT b.layer, b.expert, b.value, b.opening, b.choices
FROM label_block AS b WHERE b.label = key AND b.block IN (SELECT k.block FROM kept AS k)
UNION ALL
SELECT r.layer, r.expert, t.value, r.position = 0 AS opening, count(*)
FROM routing AS r JOIN token_label AS t ON t.run = r.run AND t.position = r.position
WHERE t.label = key AND t.value IS NOT NULL AND r.run IN (SELECT o.id FROM others AS o)
GROUP BY r.layer, r.expert, t.value, opening;
