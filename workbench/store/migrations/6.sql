-- Choice sets as bits, and sums over blocks of runs by pairs of layers and by label. Blocks are made anew, from what is
-- kept of their single runs, when the next runs are summed; that is also when the sets of runs summed before are kept.
ALTER TABLE block_run ADD COLUMN large BOOLEAN;

CREATE TABLE set_sum (
    run      BIGINT NOT NULL,
    step     INTEGER NOT NULL,
    position INTEGER NOT NULL,
    layer    USMALLINT NOT NULL,
    word     USMALLINT NOT NULL,
    chosen   UBIGINT NOT NULL,
    top      USMALLINT
);

CREATE TABLE set_run (
    run  BIGINT NOT NULL,
    kept BOOLEAN NOT NULL
);

CREATE TABLE across_block (
    block        BIGINT NOT NULL,
    layer        USMALLINT NOT NULL,
    other_layer  USMALLINT NOT NULL,
    expert       USMALLINT NOT NULL,
    other_expert USMALLINT NOT NULL,
    opening      BOOLEAN NOT NULL,
    tokens       BIGINT
);

CREATE TABLE label_block (
    block   BIGINT NOT NULL,
    label   VARCHAR NOT NULL,
    value   VARCHAR NOT NULL,
    layer   USMALLINT NOT NULL,
    expert  USMALLINT NOT NULL,
    opening BOOLEAN NOT NULL,
    choices BIGINT
);

CREATE TABLE block_label (
    block BIGINT NOT NULL,
    label VARCHAR NOT NULL,
    mark  UBIGINT NOT NULL
);

DELETE FROM block_run;
DELETE FROM pair_block;
DELETE FROM next_block;
DELETE FROM place_block;
