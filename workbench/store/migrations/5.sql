-- Work that is done and thrown away is told apart from work that counts.
ALTER TABLE cost ADD COLUMN masked BIGINT;
