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
