-- Runs of few choices keep no sums by pairs of experts of their own. Those that were summed before have them; how many
-- choice sets an expert is in, which they said too, stands with its other sums from now on.
ALTER TABLE summarised ADD COLUMN pairs BOOLEAN;
UPDATE summarised SET pairs = true;
ALTER TABLE expert_sum ADD COLUMN sets BIGINT;
UPDATE expert_sum AS e SET sets = p.tokens FROM pair_sum AS p
WHERE p.run = e.run AND p.layer = e.layer AND p.expert = e.expert AND p.other = e.expert AND p.opening = e.opening;
-- Work that is done and thrown away is told apart from work that counts.
ALTER TABLE cost ADD COLUMN masked BIGINT;
