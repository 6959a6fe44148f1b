-- whole_blocks: blocks of runs whose every run is among `run` (one id or a list),
--   block = the smallest of its runs.
-- Source: bookkeeping of this store.
CREATE OR REPLACE MACRO whole_blocks(run) AS TABLE
SELECT b.block FROM block_run AS b
GROUP BY b.block
HAVING bool_and(b.run IN (SELECT unnest(run_ids(run))));

-- runs_outside: those of `run` (one id or a list) that are in no whole block,
--   ids of `run` less the runs of whole_blocks(run).
-- Source: bookkeeping of this store.
CREATE OR REPLACE MACRO runs_outside(run) AS TABLE
SELECT q.id FROM (SELECT DISTINCT unnest(run_ids(run)) AS id) AS q
WHERE q.id NOT IN (SELECT b.run FROM block_run AS b WHERE b.block IN (SELECT w.block FROM whole_blocks(run) AS w));

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
