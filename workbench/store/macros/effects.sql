-- skip_matrix: what later layers and the output do differently when a unit of an earlier layer is skipped,
--   largest = max over tokens and prompts of ||D_l - D_l^s|| / ||D_l||, with D_l the update of layer l and s the skipped layer
--   mean = the mean in place of the maximum
--   in the row whose layer is NULL, of ||p - p^s|| of the next-token distributions.
-- Source: skip-effect matrices, current and future tokens, of Csordas, Manning, Potts 2025.
CREATE OR REPLACE MACRO skip_matrix(experiment) AS TABLE
SELECT e.unit, e.tokens, e.skipped, e.layer, max(e.value) FILTER (e.name = 'largest') AS largest,
       max(e.value) FILTER (e.name = 'mean') AS mean
FROM effect AS e
WHERE e.experiment = experiment AND e.name IN ('largest', 'mean')
GROUP BY e.unit, e.tokens, e.skipped, e.layer
ORDER BY e.unit, e.tokens, e.skipped, e.layer NULLS LAST;

-- layer_effect: how far a plan moves the residual stream behind each layer,
--   cka = linear centred kernel alignment of the tokens' residuals without and with the plan (1 is the same up to rotation)
--   distance = mean of ||h - h'|| / ||h||
--   kl = mean KL(what final norm and head read from h || from h'), nats.
-- Source: CKA of Kornblith et al. 2019; logit lens.
CREATE OR REPLACE MACRO layer_effect(experiment) AS TABLE
SELECT e.plan, e.layer, max(e.value) FILTER (e.name = 'cka') AS cka, max(e.value) FILTER (e.name = 'distance') AS distance,
       max(e.value) FILTER (e.name = 'kl') AS kl
FROM effect AS e
WHERE e.experiment = experiment AND e.name IN ('cka', 'distance', 'kl')
GROUP BY e.plan, e.layer
ORDER BY e.plan, e.layer;

-- recovery_layer: where the residual stream comes back to what it is without the plan,
--   departed = first layer with distance > tolerance,  recovered = first layer from which on distance <= tolerance
--   behind it; NULL where there is none.
-- Source: first layer after an edit where similarity returns above a cut, over the distances of layer_effect.
CREATE OR REPLACE MACRO recovery_layer(experiment, tolerance := 0.1) AS TABLE
WITH far AS (
    SELECT d.plan, min(d.layer) FILTER (d.distance > tolerance) AS departed,
           max(d.layer) FILTER (d.distance > tolerance) AS last, max(d.layer) AS top
    FROM layer_effect(experiment) AS d
    GROUP BY d.plan
)
SELECT f.plan, f.departed, CASE WHEN f.last < f.top THEN CAST(f.last + 1 AS USMALLINT) END AS recovered
FROM far AS f
ORDER BY f.plan;

-- tolerable_sparsity: what each level of sparsity costs, and whether it is tolerable,
--   change = mean of (loss with - loss without) over items,  upper = change + z * sd / sqrt(items)
--   worst_task = the task of the largest mean change, worst_change
--   tolerable = upper <= tolerance here and at every smaller level.
-- Source: tolerable sparsity of Nawrot et al. 2025, "The Sparse Frontier"; z = 1.645 bounds one side at 95 %.
CREATE OR REPLACE MACRO tolerable_sparsity(experiment, tolerance, z := 1.645) AS TABLE
WITH levels AS (
    SELECT e.level, count(*) AS items, avg(e.value) AS change,
           avg(e.value) + z * stddev_samp(e.value) / sqrt(count(*)) AS upper
    FROM effect AS e
    WHERE e.experiment = experiment AND e.name = 'loss_change'
    GROUP BY e.level
), tasks AS (
    SELECT e.level, e.task, avg(e.value) AS change
    FROM effect AS e
    WHERE e.experiment = experiment AND e.name = 'loss_change' AND e.task IS NOT NULL
    GROUP BY e.level, e.task
), worst AS (
    SELECT t.level, arg_max(t.task, t.change) AS worst_task, max(t.change) AS worst_change
    FROM tasks AS t
    GROUP BY t.level
)
SELECT l.level, l.items, l.change, l.upper, w.worst_task, w.worst_change,
       bool_and(l.upper <= tolerance) OVER (ORDER BY l.level) AS tolerable
FROM levels AS l
LEFT JOIN worst AS w ON w.level = l.level
ORDER BY l.level;
