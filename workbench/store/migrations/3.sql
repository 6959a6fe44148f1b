-- Sums by position, of what blocks add and of sparsity. Runs that were summed before have none of them: they are summed anew.
DELETE FROM summarised;
DELETE FROM expert_sum;
DELETE FROM rank_sum;
DELETE FROM pair_sum;
DELETE FROM next_sum;
DELETE FROM layer_sum;

CREATE TABLE router_sum (
    run       BIGINT NOT NULL,
    layer     USMALLINT NOT NULL,
    place     INTEGER NOT NULL,
    opening   BOOLEAN NOT NULL,
    tokens    BIGINT,
    margins   BIGINT,
    margin    DOUBLE,
    entropies BIGINT,
    entropy   DOUBLE,
    told      BIGINT,
    ties      BIGINT,
    counted   BIGINT,
    dropped   BIGINT,
    touched   BIGINT
);

CREATE TABLE place_sum (
    run     BIGINT NOT NULL,
    layer   USMALLINT NOT NULL,
    place   INTEGER NOT NULL,
    expert  USMALLINT NOT NULL,
    opening BOOLEAN NOT NULL,
    choices BIGINT
);

CREATE TABLE part_sum (
    run     BIGINT NOT NULL,
    layer   USMALLINT NOT NULL,
    part    VARCHAR NOT NULL,
    opening BOOLEAN NOT NULL,
    tokens  BIGINT,
    total   DOUBLE
);

CREATE TABLE sparsity_sum (
    run         BIGINT NOT NULL,
    layer       USMALLINT NOT NULL,
    expert      SMALLINT NOT NULL,
    threshold   FLOAT,
    opening     BOOLEAN NOT NULL,
    activations BIGINT,
    width       BIGINT,
    zero        DOUBLE,
    below       DOUBLE,
    hoyers      BIGINT,
    hoyer       DOUBLE
);

-- What leaving something out does, as an experiment measured it over many runs.
CREATE TABLE effect (
    experiment BIGINT NOT NULL,
    plan       VARCHAR,
    level      DOUBLE,
    unit       VARCHAR,
    skipped    USMALLINT,
    tokens     VARCHAR,
    layer      USMALLINT,
    task       VARCHAR,
    item       INTEGER,
    name       VARCHAR NOT NULL,
    value      DOUBLE
);
