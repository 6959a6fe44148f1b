-- Rows dropped by run, margins between groups, drawn score vectors, soft frequencies, and how an attention rank was found.
ALTER TABLE run ADD COLUMN dropped JSON;
ALTER TABLE router ADD COLUMN group_margin FLOAT;
ALTER TABLE router_scores ADD COLUMN share FLOAT;
ALTER TABLE attention_rank ADD COLUMN length INTEGER;
ALTER TABLE attention_rank ADD COLUMN error FLOAT;
ALTER TABLE expert_stat ADD COLUMN soft_sum DOUBLE;
ALTER TABLE expert_stat ADD COLUMN reap_sum DOUBLE;
