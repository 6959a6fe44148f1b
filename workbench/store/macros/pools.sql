-- Pools: choices by layer, token id and expert over many runs of one model.
--
-- These cells are nearly as many as choices, and what is asked of them (an entropy, a maximum) cannot be added up over runs.  So
-- a pool keeps the cells themselves, a row for each layer and id, together with what is asked.  A question begins with the pool
-- that its runs are most like, and counts only the runs by which the two differ: those that are asked and not in the pool are
-- added, those that are in the pool and not asked are taken off.  Position 0 is in no pool.

-- x_ln_x: the summand of an entropy,
--   x ln x, 0 for x = 0.
-- Source: Shannon.
CREATE OR REPLACE MACRO x_ln_x(x) AS
    CASE WHEN x > 0 THEN x * ln(x) ELSE 0 END;

-- best_of: how often an expert weighs most and which it is, as one number: the largest of several is the most frequent expert and,
-- among equally frequent ones, the lowest,
--   tops * 2^16 + 65535 - expert.
-- Source: bookkeeping of this store.
CREATE OR REPLACE MACRO best_of(tops, expert) AS
    CAST(tops AS BIGINT) << 16 | (65535 - expert);

-- pool_for: the pool that a question about `run` (one id or a list) begins with; none where there is none that spares choices,
--   pool = the one with the largest positive (choices of its runs that are asked) - (choices of its runs that are not).
-- Source: bookkeeping of this store.
CREATE OR REPLACE MACRO pool_for(run) AS TABLE
SELECT q.pool
FROM (
    SELECT p.pool,
           sum(CASE WHEN p.run IN (SELECT unnest(run_ids(run))) THEN s.choices ELSE -s.choices END) AS spared
    FROM pool_run AS p JOIN summarised AS s ON s.run = p.run
    GROUP BY p.pool
) AS q
WHERE q.spared > 0
ORDER BY q.spared DESC, q.pool
LIMIT 1;

-- pool_changes: what becomes of the runs of a question about `run` and of the pool that it begins with,
--   state = 'added': asked and not in the pool,  'removed': in the pool and not asked,  'kept': both.
-- Source: bookkeeping of this store.
CREATE OR REPLACE MACRO pool_changes(run) AS TABLE
SELECT coalesce(q.id, p.run) AS run,
       CASE WHEN p.run IS NULL THEN 'added' WHEN q.id IS NULL THEN 'removed' ELSE 'kept' END AS state
FROM (SELECT DISTINCT unnest(run_ids(run)) AS id) AS q
FULL JOIN (SELECT m.run FROM pool_run AS m WHERE m.pool IN (SELECT f.pool FROM pool_for(run) AS f)) AS p ON p.run = q.id;

-- changed_ids: the tokens that a question about `run` adds to the pool it begins with or takes off it,
--   token = that of the latest step at the position,  sign = 1 for added ones, -1 for those taken off.  Position 0, which is in no
--   pool, is added of every run that is asked where it counts (`first`).
-- Source: bookkeeping of this store.
CREATE OR REPLACE MACRO changed_ids(run, first := false) AS TABLE
SELECT t.run, t.position, arg_max(t.token, t.step) AS token,
       any_value(CASE WHEN c.state = 'removed' THEN -1::DOUBLE ELSE 1::DOUBLE END) AS sign
FROM token AS t JOIN pool_changes(run) AS c ON c.run = t.run
WHERE t.position > 0 AND c.state <> 'kept' OR first AND t.position = 0 AND c.state <> 'removed'
GROUP BY t.run, t.position;

-- changed_runs: runs that a question about `run` counts: those by which they differ from the pool it begins with, as a list.
--   runs of pool_changes(run) that are not kept.
-- Source: bookkeeping of this store.
CREATE OR REPLACE MACRO changed_runs(run) AS
    (SELECT coalesce(list(c.run), []) FROM pool_changes(run) AS c WHERE c.state <> 'kept');

-- kept_runs: the other runs that are asked, as a list; of these position 0 alone is counted.
--   runs of pool_changes(run) that are kept.
-- Source: bookkeeping of this store.
CREATE OR REPLACE MACRO kept_runs(run) AS
    (SELECT coalesce(list(c.run), []) FROM pool_changes(run) AS c WHERE c.state = 'kept');

-- token_changes: what a question about `run` adds to the pool it begins with, by layer, token id and expert,
--   choices = slots,  tops = slots of rank 0; below zero where more are taken off.
-- Source: sums over the rows of routing and token.
CREATE OR REPLACE MACRO token_changes(run, first := false) AS TABLE
WITH ids AS (
    FROM changed_ids(run, first := first)
)
SELECT q.layer, q.token, q.expert, sum(q.sign) AS choices, coalesce(sum(q.sign) FILTER (q.rank = 0), 0) AS tops
FROM (
    SELECT r.layer, i.token, r.expert, r.rank, i.sign
    FROM routing AS r JOIN ids AS i ON i.run = r.run AND i.position = r.position
    WHERE r.run IN (SELECT unnest(changed_runs(run)))
    UNION ALL
    SELECT r.layer, i.token, r.expert, r.rank, i.sign
    FROM routing AS r JOIN ids AS i ON i.run = r.run AND i.position = r.position
    WHERE first AND r.position = 0 AND r.run IN (SELECT unnest(kept_runs(run)))
) AS q
GROUP BY q.layer, q.token, q.expert;

-- top_changes: the same of best experts alone,
--   tops = choice sets in which the expert has rank 0; below zero where more are taken off.
-- Source: sums over the rows of routing and token.
CREATE OR REPLACE MACRO top_changes(run, first := false) AS TABLE
WITH ids AS (
    FROM changed_ids(run, first := first)
)
SELECT q.layer, q.token, q.expert, sum(q.sign) AS tops
FROM (
    SELECT t.layer, i.token, t.expert, i.sign
    FROM top_cells(changed_runs(run)) AS t JOIN ids AS i ON i.run = t.run AND i.position = t.position
    UNION ALL
    SELECT r.layer, i.token, r.expert, i.sign
    FROM routing AS r JOIN ids AS i ON i.run = r.run AND i.position = r.position
    WHERE first AND r.position = 0 AND r.rank = 0 AND r.run IN (SELECT unnest(kept_runs(run)))
) AS q
GROUP BY q.layer, q.token, q.expert;
