-- Table macros: the vocabulary of questions over the store, renewed whenever a recording process opens the file.
--
-- `run` is one run id or a list of ids.  Loads, means and rates leave out position 0 (the first token is an attention
-- sink that routes like no other) unless `first := true` is given.  Entropies and informations are in nats.  Sums go over
-- the rows as executed, after any edit.  Inside a body a bare `run` is the parameter, a qualified one is the column.
--
-- The comment above a macro is its documentation (workbench.store.schema.macro_docs): what it answers, formulas set in by
-- three spaces, and its source.

-- Cells: sums by run from which the other macros answer, so that no question has to read every choice again.
--
-- Each of these macros reads the table of the same name for the runs in `summarised` (sums by pairs for those that say so
-- there), and for all others the rows themselves; Store.summarise keeps what they give for runs that have ended.  Sums of the
-- two never overlap.  `opening` says that a cell is about position 0, which questions leave out unless asked.  A *choice set*
-- is the set of the experts that one token chose in one layer in one step.

-- run_ids: the ids in `run` as a list, whether it is one id or a list of them,
--   run_ids(7) = [7],  run_ids([7, 8]) = [7, 8].
-- Source: the convention of every macro here.
CREATE OR REPLACE MACRO run_ids(ids) AS
    CAST('[' || trim(CAST(ids AS VARCHAR), '[]') || ']' AS BIGINT[]);

-- unsummarised: those of `run` (one id or a list) of which no sums are kept.
--   ids of `run` without a row in summarised.
-- Source: bookkeeping of this store.
CREATE OR REPLACE MACRO unsummarised(run) AS TABLE
SELECT q.id FROM (SELECT DISTINCT unnest(run_ids(run)) AS id) AS q
WHERE q.id NOT IN (SELECT s.run FROM summarised AS s);

-- unpaired: those of `run` (one id or a list) of which no sums by pairs of experts are kept: also those of so few choices that
-- the sums would be more.
--   ids of `run` without a row in summarised that says pairs.
-- Source: bookkeeping of this store.
CREATE OR REPLACE MACRO unpaired(run) AS TABLE
SELECT q.id FROM (SELECT DISTINCT unnest(run_ids(run)) AS id) AS q
WHERE q.id NOT IN (SELECT s.run FROM summarised AS s WHERE s.pairs);

-- unset: those of `run` (one id or a list) whose choice sets are not kept as bits.
--   ids of `run` without a row in set_run that says kept.
-- Source: bookkeeping of this store.
CREATE OR REPLACE MACRO unset(run) AS TABLE
SELECT q.id FROM (SELECT DISTINCT unnest(run_ids(run)) AS id) AS q
WHERE q.id NOT IN (SELECT s.run FROM set_run AS s WHERE s.kept);

-- set_cells: choice sets as bits, one row for each 64 experts of which a set has one,
--   word = expert // 64,  chosen = sum of 2^(expert % 64) over the experts of the set in that word,
--   top = expert of rank 0 where it is in that word.
-- Source: the rows of routing.
CREATE OR REPLACE MACRO set_cells(run) AS TABLE
SELECT s.run, s.step, s.position, s.layer, s.word, s.chosen, s.top
FROM set_sum AS s WHERE s.run IN (SELECT unnest(run_ids(run)))
UNION ALL
SELECT r.run, r.step, r.position, r.layer, r.expert >> 6 AS word, bit_or(1::UBIGINT << (r.expert & 63)),
       min(r.expert) FILTER (r.rank = 0)
FROM routing AS r WHERE r.run IN (SELECT u.id FROM unset(run) AS u)
GROUP BY r.run, r.step, r.position, r.layer, word;

-- top_cells: the expert of rank 0 of every choice set,
--   expert = that of rank 0.
-- Source: the rows of routing.
CREATE OR REPLACE MACRO top_cells(run) AS TABLE
SELECT s.run, s.step, s.position, s.layer, s.top AS expert
FROM set_sum AS s WHERE s.run IN (SELECT unnest(run_ids(run))) AND s.top IS NOT NULL
UNION ALL
SELECT r.run, r.step, r.position, r.layer, r.expert
FROM routing AS r WHERE r.run IN (SELECT u.id FROM unset(run) AS u) AND r.rank = 0;

-- expert_cells: sums by run, layer and expert,
--   choices = slots,  tops = slots of rank 0,  weight = sum of w,  share = sum of w / (sum of the weights of that choice),
--   share_ln = sum of share ln share,  normed = slots with a norm, over which  norm_weight = sum w,  norm = sum |y|,
--   weighted_norm = sum w |y|,  sets = choice sets with it.  Choices whose weights sum to 0 have no share.
-- Source: sums over the rows of routing.
CREATE OR REPLACE MACRO expert_cells(run) AS TABLE
SELECT s.run, s.layer, s.expert, s.opening, s.choices, s.tops, s.weight, s.share, s.share_ln, s.normed, s.norm_weight, s.norm,
       s.weighted_norm, s.sets
FROM expert_sum AS s WHERE s.run IN (SELECT unnest(run_ids(run)))
UNION ALL
SELECT q.run, q.layer, q.expert, q.opening, count(*), count(*) FILTER (q.rank = 0), sum(q.w), sum(q.p),
       sum(CASE WHEN q.p > 0 THEN q.p * ln(q.p) WHEN q.p = 0 THEN 0 END), count(q.norm),
       sum(q.w) FILTER (q.norm IS NOT NULL), sum(CAST(q.norm AS DOUBLE)), sum(q.w * q.norm),
       count(*) - count(q.part) + CAST(coalesce(round(sum(q.part)), 0) AS BIGINT)
FROM (
    SELECT c.run, c.layer, c.opening, unnest(c.experts) AS expert, unnest(c.ranks) AS rank, unnest(c.norms) AS norm,
           unnest(c.weights) AS w, CASE WHEN c.total > 0 THEN unnest(c.weights) / c.total END AS p,
           -- Where an expert was chosen more than once, the part of one that each of its slots is.
           unnest(CASE WHEN len(list_distinct(c.experts)) < len(c.experts) THEN list_transform(
               c.experts, lambda e: 1::DOUBLE / len(list_filter(c.experts, lambda f: f = e))) END) AS part
    FROM (
        SELECT r.run, r.layer, r.position = 0 AS opening, list(r.expert) AS experts, list(r.rank) AS ranks,
               list(r.norm) AS norms, list(CAST(r.weight AS DOUBLE)) AS weights, sum(CAST(r.weight AS DOUBLE)) AS total
        FROM routing AS r WHERE r.run IN (SELECT u.id FROM unsummarised(run) AS u)
        GROUP BY r.run, r.step, r.position, r.layer
    ) AS c
) AS q
GROUP BY q.run, q.layer, q.expert, q.opening;

-- rank_cells: sums by run, layer and rank of the slot,
--   choices, weight, share, normed, norm as in expert_cells,  shared = slots with a share,  place = sum of the places of the
--   norms among the slots of the choice (0 is the largest),  agree = slots whose norm has the place of their weight.
-- Source: sums over the rows of routing.
CREATE OR REPLACE MACRO rank_cells(run) AS TABLE
WITH sets AS (
    SELECT r.run, r.layer, r.position = 0 AS opening, list(r.rank) AS ranks,
           list(CAST(r.weight AS DOUBLE)) AS weights, sum(CAST(r.weight AS DOUBLE)) AS total,
           list_sort(list({'n': -r.norm, 'r': r.rank}) FILTER (r.norm IS NOT NULL)) AS by_norm
    FROM routing AS r WHERE r.run IN (SELECT u.id FROM unsummarised(run) AS u)
    GROUP BY r.run, r.step, r.position, r.layer
), weighed AS (
    SELECT q.run, q.layer, q.rank, q.opening, count(*) AS choices, sum(q.w) AS weight, count(q.p) AS shared, sum(q.p) AS share
    FROM (
        SELECT c.run, c.layer, c.opening, unnest(c.ranks) AS rank, unnest(c.weights) AS w,
               CASE WHEN c.total > 0 THEN unnest(c.weights) / c.total END AS p
        FROM sets AS c
    ) AS q
    GROUP BY q.run, q.layer, q.rank, q.opening
), loud AS (
    SELECT q.run, q.layer, q.norm.r AS rank, q.opening, count(*) AS normed, sum(CAST(-q.norm.n AS DOUBLE)) AS norm,
           CAST(sum(q.place) AS BIGINT) AS place, count(*) FILTER (q.place = q.norm.r) AS agree
    FROM (
        SELECT c.run, c.layer, c.opening, unnest(c.by_norm) AS norm, unnest(range(len(c.by_norm))) AS place FROM sets AS c
    ) AS q
    GROUP BY q.run, q.layer, rank, q.opening
)
SELECT s.run, s.layer, s.rank, s.opening, s.choices, s.weight, s.shared, s.share, s.normed, s.norm, s.place, s.agree
FROM rank_sum AS s WHERE s.run IN (SELECT unnest(run_ids(run)))
UNION ALL
SELECT w.run, w.layer, w.rank, w.opening, w.choices, w.weight, w.shared, w.share, coalesce(n.normed, 0), n.norm, n.place,
       coalesce(n.agree, 0)
FROM weighed AS w LEFT JOIN loud AS n ON n.run = w.run AND n.layer = w.layer AND n.rank = w.rank AND n.opening = w.opening;

-- pair_cells: tokens of a run that chose two experts of a layer together,
--   tokens = choice sets with expert and other, expert <= other;  expert = other counts the sets with that expert.
-- Source: sums over the rows of routing.
CREATE OR REPLACE MACRO pair_cells(run) AS TABLE
SELECT s.run, s.layer, s.expert, s.other, s.opening, s.tokens
FROM pair_sum AS s WHERE s.run IN (SELECT unnest(run_ids(run)))
UNION ALL
SELECT q.run, q.layer, q.expert, q.other, q.opening, count(*)
FROM (
    -- Two unnests of a list are several times cheaper than joining the slots of a token with themselves.
    SELECT p.run, p.layer, p.opening, p.expert, unnest(p.experts) AS other
    FROM (
        SELECT c.run, c.layer, c.opening, unnest(c.experts) AS expert, c.experts
        FROM (
            SELECT r.run, r.layer, r.position = 0 AS opening, list(DISTINCT r.expert) AS experts
            FROM routing AS r WHERE r.run IN (SELECT u.id FROM unpaired(run) AS u)
            GROUP BY r.run, r.step, r.position, r.layer
        ) AS c
    ) AS p
) AS q
WHERE q.expert <= q.other
GROUP BY q.run, q.layer, q.expert, q.other, q.opening;

-- next_cells: from the choice of a token in one routed layer to its choice in the next,
--   tokens = choice sets with expert at layer and next_expert at next_layer,  seen = those at even positions in which expert
--   has rank 0,  tried = sum of 1 / |next set| over those at odd positions.
-- Source: sums over the rows of routing.
CREATE OR REPLACE MACRO next_cells(run) AS TABLE
WITH sets AS (
    SELECT r.run, r.step, r.position, r.layer, list(DISTINCT r.expert) AS experts, arg_min(r.expert, r.rank) AS top
    FROM routing AS r WHERE r.run IN (SELECT u.id FROM unpaired(run) AS u)
    GROUP BY r.run, r.step, r.position, r.layer
), following AS (
    SELECT d.run, d.layer, lead(d.layer) OVER (PARTITION BY d.run ORDER BY d.layer) AS next_layer
    FROM (SELECT DISTINCT p.run, p.layer FROM sets AS p) AS d
), steps AS (
    SELECT a.run, a.layer, a.position = 0 AS opening, a.position % 2 = 1 AS odd, a.top, a.experts, b.experts AS next_experts
    FROM sets AS a
    JOIN following AS f ON f.run = a.run AND f.layer = a.layer
    JOIN sets AS b ON b.run = a.run AND b.step = a.step AND b.position = a.position AND b.layer = f.next_layer
), met AS (
    SELECT q.run, q.layer, q.expert, q.next_expert, q.opening, count(*) AS tokens
    FROM (
        SELECT p.run, p.layer, p.opening, p.expert, unnest(p.next_experts) AS next_expert
        FROM (SELECT s.run, s.layer, s.opening, unnest(s.experts) AS expert, s.next_experts FROM steps AS s) AS p
    ) AS q
    GROUP BY q.run, q.layer, q.expert, q.next_expert, q.opening
), led AS (
    -- From the best expert alone, one of the experts of the set: an eighth of the rows where eight are chosen.
    SELECT q.run, q.layer, q.top, q.next_expert, q.opening, count(*) FILTER (NOT q.odd) AS seen,
           coalesce(sum(q.part) FILTER (q.odd), 0) AS tried
    FROM (
        SELECT s.run, s.layer, s.opening, s.odd, s.top, unnest(s.next_experts) AS next_expert,
               1.0::DOUBLE / len(s.next_experts) AS part
        FROM steps AS s
    ) AS q
    GROUP BY q.run, q.layer, q.top, q.next_expert, q.opening
)
SELECT s.run, s.layer, s.next_layer, s.expert, s.next_expert, s.opening, s.tokens, s.seen, s.tried
FROM next_sum AS s WHERE s.run IN (SELECT unnest(run_ids(run)))
UNION ALL
SELECT m.run, m.layer, f.next_layer, m.expert, m.next_expert, m.opening, m.tokens, coalesce(t.seen, 0), coalesce(t.tried, 0)
FROM met AS m
JOIN following AS f ON f.run = m.run AND f.layer = m.layer
LEFT JOIN led AS t ON t.run = m.run AND t.layer = m.layer AND t.top = m.expert AND t.next_expert = m.next_expert
                  AND t.opening = m.opening;

-- layer_cells: sums by run and layer,
--   tokens = choice sets,  shared = those whose weights do not sum to 0,
--   followers = choices whose run has one at the next position,  same = those with the same expert of rank 0,
--   overlap = those with an expert in common,
--   chunks = full chunks of 8 consecutive positions of one step,  used = sum of the experts each of them uses; those that
--   begin at multiples of 8 are under `opening`, those that begin one later under its opposite.
-- Source: sums over the rows of routing.
CREATE OR REPLACE MACRO layer_cells(run) AS TABLE
WITH sets AS (
    SELECT r.run, r.step, r.position, r.layer, list(DISTINCT r.expert) AS experts, arg_min(r.expert, r.rank) AS top,
           sum(CAST(r.weight AS DOUBLE)) > 0 AS shared
    FROM routing AS r WHERE r.run IN (SELECT u.id FROM unsummarised(run) AS u)
    GROUP BY r.run, r.step, r.position, r.layer
), pairs AS (
    SELECT s.run, s.layer, s.position = 0 AS opening, s.shared, s.top, s.experts,
           lead(s.position) OVER w = s.position + 1 AS followed, lead(s.top) OVER w AS next_top,
           lead(s.experts) OVER w AS next_experts
    FROM sets AS s
    WINDOW w AS (PARTITION BY s.run, s.layer ORDER BY s.position, s.step)
), pieces AS (
    SELECT s.run, s.step, s.layer, o.opening, (s.position - CASE WHEN o.opening THEN 0 ELSE 1 END) // 8 AS piece,
           count(DISTINCT s.position) = 8 AS whole, list(s.experts) AS experts
    FROM sets AS s, (VALUES (true), (false)) AS o(opening)
    WHERE o.opening OR s.position > 0
    GROUP BY s.run, s.step, s.layer, o.opening, piece
), chunks AS (
    SELECT q.run, q.layer, q.opening, count(*) AS chunks, sum(q.used) AS used
    FROM (
        SELECT p.run, p.layer, p.opening, list_unique(flatten(p.experts)) AS used FROM pieces AS p WHERE p.whole
    ) AS q
    GROUP BY q.run, q.layer, q.opening
), counted AS (
    SELECT p.run, p.layer, p.opening, count(*) AS tokens, count(*) FILTER (p.shared) AS shared,
           count(*) FILTER (p.followed) AS followers, count(*) FILTER (p.followed AND p.top = p.next_top) AS same,
           count(*) FILTER (p.followed AND list_has_any(p.experts, p.next_experts)) AS overlap
    FROM pairs AS p
    GROUP BY p.run, p.layer, p.opening
)
SELECT s.run, s.layer, s.opening, s.tokens, s.shared, s.followers, s.same, s.overlap, s.chunks, s.used
FROM layer_sum AS s WHERE s.run IN (SELECT unnest(run_ids(run)))
UNION ALL
SELECT coalesce(n.run, c.run), coalesce(n.layer, c.layer), coalesce(n.opening, c.opening), coalesce(n.tokens, 0),
       coalesce(n.shared, 0), coalesce(n.followers, 0), coalesce(n.same, 0), coalesce(n.overlap, 0), coalesce(c.chunks, 0),
       CAST(coalesce(c.used, 0) AS BIGINT)
FROM counted AS n FULL JOIN chunks AS c ON c.run = n.run AND c.layer = n.layer AND c.opening = n.opening;
