-- Sums over blocks of runs: made from the sums of single runs when the next are kept.
CREATE TABLE block_run (
    block BIGINT NOT NULL,
    run   BIGINT NOT NULL
);

CREATE TABLE pair_block (
    block   BIGINT NOT NULL,
    layer   USMALLINT NOT NULL,
    expert  USMALLINT NOT NULL,
    other   USMALLINT NOT NULL,
    opening BOOLEAN NOT NULL,
    tokens  BIGINT
);

CREATE TABLE next_block (
    block       BIGINT NOT NULL,
    layer       USMALLINT NOT NULL,
    next_layer  USMALLINT NOT NULL,
    expert      USMALLINT NOT NULL,
    next_expert USMALLINT NOT NULL,
    opening     BOOLEAN NOT NULL,
    tokens      BIGINT,
    seen        BIGINT,
    tried       DOUBLE
);

CREATE TABLE place_block (
    block   BIGINT NOT NULL,
    layer   USMALLINT NOT NULL,
    place   INTEGER NOT NULL,
    expert  USMALLINT NOT NULL,
    opening BOOLEAN NOT NULL,
    choices BIGINT
);
