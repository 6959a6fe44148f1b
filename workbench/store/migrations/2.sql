-- Rows dropped by run, margins between groups, drawn score vectors, soft frequencies, how an attention rank was found, and
-- the sums of ended runs.
ALTER TABLE run ADD COLUMN dropped JSON;
ALTER TABLE router ADD COLUMN group_margin FLOAT;
ALTER TABLE router_scores ADD COLUMN share FLOAT;
ALTER TABLE attention_rank ADD COLUMN length INTEGER;
ALTER TABLE attention_rank ADD COLUMN error FLOAT;
ALTER TABLE expert_stat ADD COLUMN soft_sum DOUBLE;
ALTER TABLE expert_stat ADD COLUMN reap_sum DOUBLE;

-- Sums of runs that have ended, so that questions about many runs need not read every choice; kept by Store.summarise,
-- defined by the macros of the same names in macros/cells.sql.  Which runs they cover stands in `summarised`.
CREATE TABLE summarised (
    run     BIGINT NOT NULL,
    choices BIGINT
);

CREATE TABLE expert_sum (
    run           BIGINT NOT NULL,
    layer         USMALLINT NOT NULL,
    expert        USMALLINT NOT NULL,
    opening       BOOLEAN NOT NULL,
    choices       BIGINT,
    tops          BIGINT,
    weight        DOUBLE,
    share         DOUBLE,
    share_ln      DOUBLE,
    normed        BIGINT,
    norm_weight   DOUBLE,
    norm          DOUBLE,
    weighted_norm DOUBLE
);

CREATE TABLE rank_sum (
    run     BIGINT NOT NULL,
    layer   USMALLINT NOT NULL,
    rank    UTINYINT NOT NULL,
    opening BOOLEAN NOT NULL,
    choices BIGINT,
    weight  DOUBLE,
    shared  BIGINT,
    share   DOUBLE,
    normed  BIGINT,
    norm    DOUBLE,
    place   BIGINT,
    agree   BIGINT
);

CREATE TABLE pair_sum (
    run     BIGINT NOT NULL,
    layer   USMALLINT NOT NULL,
    expert  USMALLINT NOT NULL,
    other   USMALLINT NOT NULL,
    opening BOOLEAN NOT NULL,
    tokens  BIGINT
);

CREATE TABLE next_sum (
    run         BIGINT NOT NULL,
    layer       USMALLINT NOT NULL,
    next_layer  USMALLINT NOT NULL,
    expert      USMALLINT NOT NULL,
    next_expert USMALLINT NOT NULL,
    opening     BOOLEAN NOT NULL,
    tokens      BIGINT,
    seen        BIGINT,
    tried       DOUBLE
);

CREATE TABLE layer_sum (
    run       BIGINT NOT NULL,
    layer     USMALLINT NOT NULL,
    opening   BOOLEAN NOT NULL,
    tokens    BIGINT,
    shared    BIGINT,
    followers BIGINT,
    same      BIGINT,
    overlap   BIGINT,
    chunks    BIGINT,
    used      BIGINT
);
CREATE TABLE attention_mask (
    run BIGINT NOT NULL, step INTEGER NOT NULL, layer USMALLINT NOT NULL, head USMALLINT NOT NULL, pattern VARCHAR,
    block USMALLINT, density FLOAT, recall FLOAT, error FLOAT
);

-- What parts of the network add directly to one logit; see workbench.signals.logit_effect.
CREATE TABLE logit_effect (
    run      BIGINT NOT NULL,
    step     INTEGER NOT NULL,
    position INTEGER NOT NULL,
    layer    USMALLINT NOT NULL,
    unit     VARCHAR NOT NULL,
    number   SMALLINT,
    target   INTEGER,
    effect   FLOAT
);

-- Where attention looks, one row a head; means over sampled query rows.
CREATE TABLE attention_map (
    run          BIGINT NOT NULL,
    step         INTEGER NOT NULL,
    layer        USMALLINT NOT NULL,
    head         USMALLINT NOT NULL,
    tokens       INTEGER,
    length       INTEGER,
    entropy      FLOAT,
    sinks        INTEGER,
    sink         FLOAT,
    local_window INTEGER,
    local        FLOAT,
    distance     FLOAT,
    decay        FLOAT
);

-- Neurons of a dense MLP that consecutive tokens use together.
CREATE TABLE neuron_chunk (
    run         BIGINT NOT NULL,
    step        INTEGER NOT NULL,
    position    INTEGER NOT NULL,
    layer       USMALLINT NOT NULL,
    chunk       INTEGER,
    union_share FLOAT,
    null_share  FLOAT
);

-- What is said about single tokens, beside the labels of the run.
CREATE TABLE token_label (
    run      BIGINT NOT NULL,
    position INTEGER NOT NULL,
    label    VARCHAR NOT NULL,
    value    VARCHAR
);

ALTER TABLE neuron_rate ADD COLUMN tokens BIGINT;
ALTER TABLE neuron_rate ADD COLUMN mean FLOAT;
ALTER TABLE neuron_rate ADD COLUMN largest FLOAT;
ALTER TABLE contribution ADD COLUMN lens_kl FLOAT;
