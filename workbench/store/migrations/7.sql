-- Pools: choices by layer, token id and expert over many runs. They are filled when the next runs are summed.
CREATE TABLE pool_run (
    pool BIGINT NOT NULL,
    run  BIGINT NOT NULL
);

CREATE TABLE token_pool (
    pool       BIGINT NOT NULL,
    layer      USMALLINT NOT NULL,
    token      INTEGER NOT NULL,
    tokens     BIGINT NOT NULL,
    choices    BIGINT NOT NULL,
    spread     DOUBLE NOT NULL,
    best       BIGINT NOT NULL,
    experts    USMALLINT[] NOT NULL,
    choices_of UINTEGER[] NOT NULL,
    tops_of    UINTEGER[] NOT NULL
);

CREATE TABLE expert_pool (
    pool    BIGINT NOT NULL,
    layer   USMALLINT NOT NULL,
    expert  USMALLINT NOT NULL,
    choices BIGINT NOT NULL,
    tops    BIGINT NOT NULL
);
