-- The rows of the store.
--
-- Tall, typed, append-only tables without indexes: one fact a row, so that every question is a plain scan, filter or
-- join. The same words are used as column names everywhere:
--
--   run       time-ordered 63-bit number of one recorded sequence, unique across stores (workbench.store.new_run_id)
--   step      number of the forward pass within the run: 0 is the prefill, 1, 2, ... are decoding steps
--   position  absolute position of a token in its sequence, from 0
--   layer     number of the block, taken from its module path; blocks without a router simply have no routing rows
--   slot      order in which the model executed the chosen experts of one token in one layer, from 0
--   expert    number of the expert within its layer
--
-- Units: entropies are in nats, norms are Euclidean, shares lie in 0..1, times are seconds, sizes are bytes.
-- NULL means "not measured", never zero.  Table macros over these rows are in the folder macros.

CREATE TABLE workbench_schema (
    version   INTEGER NOT NULL,      -- version of this schema that the file has reached
    reached   TIMESTAMP NOT NULL     -- when it did, UTC
);

-- One row a sequence, written when the run ends.
CREATE TABLE run (
    run           BIGINT NOT NULL,
    parent        BIGINT,            -- the run this one branched from or is compared with, NULL for a fresh one
    started       TIMESTAMP,         -- UTC
    kind          VARCHAR,           -- 'forward' or 'generate'
    model         VARCHAR,           -- name or folder the model was opened by
    checkpoint    VARCHAR,           -- content hash of the weights
    revision      VARCHAR,           -- revision asked for on the hub
    seed          BIGINT,            -- random seed, NULL where nothing was sampled
    dtype         VARCHAR,           -- dtype of the weights
    device        VARCHAR,
    kernels       VARCHAR,           -- kernel backend in use
    isa           VARCHAR,           -- its instruction set
    num_layers    INTEGER,           -- blocks
    num_experts   INTEGER,           -- routed experts a layer, NULL for a dense model
    top_k         INTEGER,           -- experts chosen by a token, NULL for a dense model
    prompt        VARCHAR,           -- text of the prompt
    text          VARCHAR,           -- text of prompt and continuation
    prompt_tokens INTEGER,           -- tokens of the prompt
    tokens        INTEGER,           -- tokens of prompt and continuation
    labels        JSON,              -- what the user says about the run, as one flat object
    record        JSON,              -- what was recorded
    versions      JSON,              -- versions of the packages in use
    dropped       JSON               -- rows that were not kept for want of room, by table; NULL for none
);

-- A plan by its content hash, as data.
CREATE TABLE plan (
    plan    VARCHAR NOT NULL,        -- hash of the plan, hexadecimal
    json    JSON,                    -- the plan itself
    created TIMESTAMP                -- UTC
);

-- Which plan held from which step on.
CREATE TABLE run_plan (
    run  BIGINT NOT NULL,
    step INTEGER NOT NULL,           -- first step the plan held for
    plan VARCHAR NOT NULL
);

-- Vectors, matrices and router files that plans name by content.
CREATE TABLE blob (
    blob  VARCHAR NOT NULL,          -- hash of the content, hexadecimal
    dtype VARCHAR,                   -- element type of data
    shape INTEGER[],                 -- extents, outermost first
    data  BLOB                       -- elements in C order, little endian
);

-- One row a token of a run.
CREATE TABLE token (
    run      BIGINT NOT NULL,
    step     INTEGER NOT NULL,
    position INTEGER NOT NULL,
    token    INTEGER NOT NULL,       -- id in the vocabulary
    text     VARCHAR,                -- the piece of text this token stands for
    part     VARCHAR,                -- 'prompt' or 'generated'
    logprob  FLOAT                   -- log p(this token | those before), nats; NULL for the first
);

-- One row a slot: the choice and its exact weight.
CREATE TABLE routing (
    run      BIGINT NOT NULL,
    step     INTEGER NOT NULL,
    position INTEGER NOT NULL,
    layer    USMALLINT NOT NULL,
    slot     UTINYINT NOT NULL,
    expert   USMALLINT NOT NULL,
    weight   FLOAT NOT NULL,         -- combine weight as executed
    rank     UTINYINT NOT NULL,      -- place of the slot by weight, 0 is the largest
    norm     FLOAT                   -- norm of the expert's output before the weight; NULL where the kernels do not give it
);

-- One row a token and layer: what can be said of the whole choice.
CREATE TABLE router (
    run            BIGINT NOT NULL,
    step           INTEGER NOT NULL,
    position       INTEGER NOT NULL,
    layer          USMALLINT NOT NULL,
    margin         FLOAT,            -- k-th score minus (k+1)-th
    entropy        FLOAT,            -- of the family's own distribution over the experts, nats
    tie            BOOLEAN,          -- the k-th and (k+1)-th score are equal
    dropped        UTINYINT,         -- slots that executed no expert
    edited         BOOLEAN,          -- an edit changed this choice or its weights
    native         USMALLINT[],      -- experts the model alone would have chosen; NULL unless edited
    native_weights FLOAT[],          -- and their weights, in the same order
    group_margin   FLOAT             -- worth of the last legal group minus the next; NULL without group limits
);

-- Full score vectors, on request.
CREATE TABLE router_scores (
    run      BIGINT NOT NULL,
    step     INTEGER NOT NULL,
    position INTEGER NOT NULL,
    layer    USMALLINT NOT NULL,
    scores   FLOAT[],                -- what selection ranks by, one an expert
    logits   FLOAT[],                -- raw output of the router, one an expert
    share    FLOAT                   -- share of the tokens that were drawn to be recorded: 1 / share weighs the row
);

-- Ranks of attention maps, one row a head.
CREATE TABLE attention_rank (
    run            BIGINT NOT NULL,
    step           INTEGER NOT NULL,
    layer          USMALLINT NOT NULL,
    head           USMALLINT NOT NULL,
    tokens         INTEGER,          -- rows of the (sub)matrix that was decomposed
    submatrix      VARCHAR,          -- 'full', or 'sampled' for a principal submatrix of sampled rows
    method         VARCHAR,          -- 'gram' (eigenvalues of A A^T), or 'sketch r' or 'kernel sketch r' (A times r random columns)
    tolerance      DOUBLE,           -- singular values above tolerance times the largest count
    dtype          VARCHAR,          -- precision of the decomposition
    rank           INTEGER,          -- singular values that count
    stable_rank    FLOAT,            -- sum of squared singular values over the largest squared
    effective_rank FLOAT,            -- exp of the entropy of the normalised singular values
    entropy        FLOAT,            -- mean entropy of the attention rows, nats
    length         INTEGER,          -- tokens of the whole map
    error          FLOAT             -- measured relative error of stable_rank against an SVD of the same map; NULL for none
);

-- What each part of a block adds to the residual stream.
CREATE TABLE contribution (
    run        BIGINT NOT NULL,
    step       INTEGER NOT NULL,
    position   INTEGER NOT NULL,
    layer      USMALLINT NOT NULL,
    attn_norm  FLOAT,                -- norm of what attention adds, over the norm of the residual it is added to
    attn_cos   FLOAT,                -- cosine between the two
    mlp_norm   FLOAT,                -- the same for the MLP
    mlp_cos    FLOAT,
    block_norm FLOAT,                -- the same for attention and MLP together
    influence  FLOAT,                -- 1 - cos(residual in, residual out)
    lens_kl    FLOAT                 -- KL(what the model predicts || what this layer would predict), nats; on request
);

-- Activation sparsity, one row a token and expert (or a token and dense MLP).
CREATE TABLE sparsity (
    run         BIGINT NOT NULL,
    step        INTEGER NOT NULL,
    position    INTEGER NOT NULL,
    layer       USMALLINT NOT NULL,
    expert      SMALLINT NOT NULL,   -- -1 for a dense MLP
    width       INTEGER,             -- neurons
    zero_share  FLOAT,               -- share of activations that are exactly zero
    threshold   FLOAT,               -- bound of below_share
    below_share FLOAT,               -- share of |activation| < threshold
    hoyer       FLOAT                -- Hoyer's measure, 0 for equal activations, 1 for a single one
);

-- Sums an expert gathers over one step, of fixed size whatever the number of tokens.
CREATE TABLE expert_stat (
    run               BIGINT NOT NULL,
    step              INTEGER NOT NULL,
    layer             USMALLINT NOT NULL,
    expert            USMALLINT NOT NULL,
    tokens            BIGINT,        -- tokens that chose it
    weight_sum        DOUBLE,        -- sum of their weights
    norm_sum          DOUBLE,        -- sum of the norms of its outputs
    weighted_norm_sum DOUBLE,        -- sum of weight times norm
    norm_max          FLOAT,         -- largest norm
    soft_sum          DOUBLE,        -- sum over ALL tokens of softmax(logits)_e; NULL for a sigmoid router
    reap_sum          DOUBLE         -- sum over the tokens that chose it of softmax(logits)_e times norm; NULL likewise
);

-- How often each neuron is active.
CREATE TABLE neuron_rate (
    run    BIGINT NOT NULL,
    layer  USMALLINT NOT NULL,
    expert SMALLINT NOT NULL,        -- -1 for a dense MLP
    neuron INTEGER NOT NULL,
    rate   FLOAT,                    -- share of the tokens that reached it for which it was active
    tokens BIGINT,                   -- those tokens
    mean   FLOAT,                    -- mean magnitude of its activation over them
    largest FLOAT                    -- largest magnitude
);

-- Departures from running every unit once.
CREATE TABLE depth (
    run      BIGINT NOT NULL,
    step     INTEGER NOT NULL,
    position INTEGER NOT NULL,
    layer    USMALLINT NOT NULL,
    unit     VARCHAR,                -- 'block', 'attn' or 'mlp'
    event    VARCHAR,                -- 'execute', 'skip', 'repeat' or 'reuse'
    kv       VARCHAR                 -- what became of the keys and values
);

-- What a mask did to the attention of one head in one pass.
CREATE TABLE attention_mask (
    run     BIGINT NOT NULL,
    step    INTEGER NOT NULL,
    layer   USMALLINT NOT NULL,
    head    USMALLINT NOT NULL,
    pattern VARCHAR,                 -- names of the masks that held
    block   USMALLINT,               -- positions of a block
    density FLOAT,                   -- share of the map's visible entries that were kept
    recall  FLOAT,                   -- share of the attention that was kept, exp(lse masked - lse), mean over queries
    error   FLOAT                    -- relative error of the head's output
);

-- What a step cost.
CREATE TABLE cost (
    run      BIGINT NOT NULL,
    step     INTEGER NOT NULL,
    layer    USMALLINT,              -- NULL for the whole model
    op       VARCHAR,                -- what was computed; 'pass' for all of it
    backend  VARCHAR,
    isa      VARCHAR,
    flops    DOUBLE,                 -- floating-point operations
    bytes    DOUBLE,                 -- bytes moved
    seconds  DOUBLE,                 -- wall clock, of which the runs of a batch have their shares; NULL where not measured
    executed BIGINT,                 -- units of work done
    skipped  BIGINT,                 -- units of work truly left out
    masked   BIGINT                  -- of those executed, units whose result an edit threw away: computed and masked
);

-- Any other number.
CREATE TABLE metric (
    run   BIGINT NOT NULL,
    step  INTEGER,
    name  VARCHAR NOT NULL,
    value DOUBLE
);

CREATE TABLE experiment (
    experiment BIGINT NOT NULL,      -- number like a run's
    created    TIMESTAMP,            -- UTC
    name       VARCHAR,
    config     JSON
);

-- What leaving something out does, as an experiment measured it over many runs.
CREATE TABLE effect (
    experiment BIGINT NOT NULL,      -- of the table experiment
    plan       VARCHAR,              -- hash of the plan whose effect it is
    level      DOUBLE,               -- share that it leaves out, where an experiment goes through several
    unit       VARCHAR,              -- the unit that was skipped: 'block', 'attn' or 'mlp'; NULL for other plans
    skipped    USMALLINT,            -- and its layer
    tokens     VARCHAR,              -- 'current': measured at the tokens that skipped, 'future': at those behind them
    layer      USMALLINT,            -- where it was measured; NULL for the output
    task       VARCHAR,              -- task of the item, where items were measured
    item       INTEGER,              -- number of the item
    name       VARCHAR NOT NULL,     -- 'largest', 'mean', 'cka', 'distance', 'kl' or 'loss_change'
    value      DOUBLE                -- see the macros that read it
);

-- What parts of the network add directly to one logit; see workbench.signals.logit_effect.
CREATE TABLE logit_effect (
    run      BIGINT NOT NULL,
    step     INTEGER NOT NULL,
    position INTEGER NOT NULL,
    layer    USMALLINT NOT NULL,
    unit     VARCHAR NOT NULL,       -- 'embed' (under the first layer), 'attn', 'mlp', 'block' (neither known), 'head', 'expert'
    number   SMALLINT,               -- which head or expert
    target   INTEGER,                -- token whose logit it is: the next one, behind the last the likeliest
    effect   FLOAT                   -- what the unit adds to it; embed, attn and mlp (or block) of all layers sum to the logit
);

-- Where attention looks, one row a head; means over sampled query rows.
CREATE TABLE attention_map (
    run          BIGINT NOT NULL,
    step         INTEGER NOT NULL,
    layer        USMALLINT NOT NULL,
    head         USMALLINT NOT NULL,
    tokens       INTEGER,            -- query rows that were looked at
    length       INTEGER,            -- tokens of the whole map
    entropy      FLOAT,              -- of a row, nats
    sinks        INTEGER,            -- first keys that count as sinks
    sink         FLOAT,              -- mass on them
    local_window INTEGER,            -- keys that count as near, the query itself included
    local        FLOAT,              -- mass on them
    distance     FLOAT,              -- mean distance of the attended keys, tokens
    decay        FLOAT               -- exponent g of mass ~ distance^-g
);

-- Neurons of a dense MLP that consecutive tokens use together.
CREATE TABLE neuron_chunk (
    run         BIGINT NOT NULL,
    step        INTEGER NOT NULL,
    position    INTEGER NOT NULL,    -- of the first token of the chunk
    layer       USMALLINT NOT NULL,
    chunk       INTEGER,             -- tokens in it
    union_share FLOAT,               -- share of the neurons that any of them makes active
    null_share  FLOAT                -- the same for independent tokens of that run
);

-- What is said about single tokens, beside the labels of the run.
CREATE TABLE token_label (
    run      BIGINT NOT NULL,
    position INTEGER NOT NULL,
    label    VARCHAR NOT NULL,       -- name of the label
    value    VARCHAR                 -- its value for this token
);

-- Sums of runs that have ended, so that questions about many runs need not read every choice; kept by Store.summarise,
-- defined by the macros of the same names in macros/cells.sql.  Which runs they cover stands in `summarised`.
CREATE TABLE summarised (
    run     BIGINT NOT NULL,
    choices BIGINT,                  -- rows of routing that were summed
    pairs   BOOLEAN                  -- whether pair_sum and next_sum hold it: they do where it has many choices for each pair
);

CREATE TABLE expert_sum (
    run           BIGINT NOT NULL,
    layer         USMALLINT NOT NULL,
    expert        USMALLINT NOT NULL,
    opening       BOOLEAN NOT NULL,  -- about position 0
    choices       BIGINT,            -- columns of expert_cells
    tops          BIGINT,            -- likewise
    weight        DOUBLE,            -- likewise
    share         DOUBLE,            -- likewise
    share_ln      DOUBLE,            -- likewise
    normed        BIGINT,            -- likewise
    norm_weight   DOUBLE,            -- likewise
    norm          DOUBLE,            -- likewise
    weighted_norm DOUBLE,            -- likewise
    sets          BIGINT             -- likewise
);

CREATE TABLE rank_sum (
    run     BIGINT NOT NULL,
    layer   USMALLINT NOT NULL,
    rank    UTINYINT NOT NULL,
    opening BOOLEAN NOT NULL,        -- about position 0
    choices BIGINT,                  -- columns of rank_cells
    weight  DOUBLE,                  -- likewise
    shared  BIGINT,                  -- likewise
    share   DOUBLE,                  -- likewise
    normed  BIGINT,                  -- likewise
    norm    DOUBLE,                  -- likewise
    place   BIGINT,                  -- likewise
    agree   BIGINT                   -- likewise
);

CREATE TABLE pair_sum (
    run     BIGINT NOT NULL,
    layer   USMALLINT NOT NULL,
    expert  USMALLINT NOT NULL,
    other   USMALLINT NOT NULL,      -- expert or a larger number
    opening BOOLEAN NOT NULL,        -- about position 0
    tokens  BIGINT                   -- choice sets with both
);

CREATE TABLE next_sum (
    run         BIGINT NOT NULL,
    layer       USMALLINT NOT NULL,
    next_layer  USMALLINT NOT NULL,  -- the next routed layer of that run
    expert      USMALLINT NOT NULL,
    next_expert USMALLINT NOT NULL,  -- of next_layer
    opening     BOOLEAN NOT NULL,    -- about position 0
    tokens      BIGINT,              -- columns of next_cells
    seen        BIGINT,              -- likewise
    tried       DOUBLE               -- likewise
);

CREATE TABLE set_sum (
    run      BIGINT NOT NULL,
    step     INTEGER NOT NULL,
    position INTEGER NOT NULL,
    layer    USMALLINT NOT NULL,
    word     USMALLINT NOT NULL,     -- columns of set_cells
    chosen   UBIGINT NOT NULL,       -- likewise
    top      USMALLINT               -- likewise
);

CREATE TABLE set_run (
    run  BIGINT NOT NULL,            -- a summarised run of which it is settled
    kept BOOLEAN NOT NULL            -- whether set_sum holds it: it does where it has many choices for each word
);

CREATE TABLE layer_sum (
    run       BIGINT NOT NULL,
    layer     USMALLINT NOT NULL,
    opening   BOOLEAN NOT NULL,      -- about position 0
    tokens    BIGINT,                -- columns of layer_cells
    shared    BIGINT,                -- likewise
    followers BIGINT,                -- likewise
    same      BIGINT,                -- likewise
    overlap   BIGINT,                -- likewise
    chunks    BIGINT,                -- likewise
    used      BIGINT                 -- likewise
);

CREATE TABLE router_sum (
    run       BIGINT NOT NULL,
    layer     USMALLINT NOT NULL,
    place     INTEGER NOT NULL,      -- position // 128
    opening   BOOLEAN NOT NULL,      -- about position 0
    tokens    BIGINT,                -- columns of router_cells
    margins   BIGINT,                -- likewise
    margin    DOUBLE,                -- likewise
    entropies BIGINT,                -- likewise
    entropy   DOUBLE,                -- likewise
    told      BIGINT,                -- likewise
    ties      BIGINT,                -- likewise
    counted   BIGINT,                -- likewise
    dropped   BIGINT,                -- likewise
    touched   BIGINT                 -- likewise
);

CREATE TABLE place_sum (
    run     BIGINT NOT NULL,
    layer   USMALLINT NOT NULL,
    place   INTEGER NOT NULL,        -- position // 128
    expert  USMALLINT NOT NULL,
    opening BOOLEAN NOT NULL,        -- about position 0
    choices BIGINT                   -- columns of place_cells
);

CREATE TABLE part_sum (
    run     BIGINT NOT NULL,
    layer   USMALLINT NOT NULL,
    part    VARCHAR NOT NULL,        -- column of contribution, or 'tokens'
    opening BOOLEAN NOT NULL,        -- about position 0
    tokens  BIGINT,                  -- columns of part_cells
    total   DOUBLE                   -- likewise
);

CREATE TABLE sparsity_sum (
    run         BIGINT NOT NULL,
    layer       USMALLINT NOT NULL,
    expert      SMALLINT NOT NULL,   -- -1 for a dense MLP
    threshold   FLOAT,               -- bound of below
    opening     BOOLEAN NOT NULL,    -- about position 0
    activations BIGINT,              -- columns of sparsity_cells
    width       BIGINT,              -- likewise
    zero        DOUBLE,              -- likewise
    below       DOUBLE,              -- likewise
    hoyers      BIGINT,              -- likewise
    hoyer       DOUBLE               -- likewise
);

-- Sums over whole blocks of summarised runs, so that questions about all runs read few rows: of what is nearly as many rows as
-- choices in a single run.  A question about some runs of a block reads their own sums, or their choices where those are fewer
-- or no sums of single runs are kept.  The macros of the same names with _totals choose.  A block that loses a run must be
-- dropped (Store.delete does it); its runs keep what they have alone.
CREATE TABLE block_run (
    block BIGINT NOT NULL,           -- the block: the smallest of its runs
    run   BIGINT NOT NULL,           -- one of its runs; a run is in one block at most
    large BOOLEAN                    -- whether across_block and label_block hold it: they do where it has many choices
);

CREATE TABLE pair_block (
    block   BIGINT NOT NULL,         -- of block_run
    layer   USMALLINT NOT NULL,
    expert  USMALLINT NOT NULL,
    other   USMALLINT NOT NULL,      -- expert or a larger number
    opening BOOLEAN NOT NULL,        -- about position 0
    tokens  BIGINT                   -- sum over the runs of pair_sum
);

CREATE TABLE next_block (
    block       BIGINT NOT NULL,     -- of block_run
    layer       USMALLINT NOT NULL,
    next_layer  USMALLINT NOT NULL,  -- the next routed layer of its runs
    expert      USMALLINT NOT NULL,
    next_expert USMALLINT NOT NULL,  -- of next_layer
    opening     BOOLEAN NOT NULL,    -- about position 0
    tokens      BIGINT,              -- sums over the runs of next_sum
    seen        BIGINT,              -- likewise
    tried       DOUBLE               -- likewise
);

CREATE TABLE place_block (
    block   BIGINT NOT NULL,         -- of block_run
    layer   USMALLINT NOT NULL,
    place   INTEGER NOT NULL,        -- position // 128
    expert  USMALLINT NOT NULL,
    opening BOOLEAN NOT NULL,        -- about position 0
    choices BIGINT                   -- sum over the runs of place_sum
);

CREATE TABLE across_block (
    block        BIGINT NOT NULL,    -- of block_run
    layer        USMALLINT NOT NULL,
    other_layer  USMALLINT NOT NULL, -- any later one
    expert       USMALLINT NOT NULL,
    other_expert USMALLINT NOT NULL, -- of other_layer
    opening      BOOLEAN NOT NULL,   -- about position 0
    tokens       BIGINT              -- column of across_totals
);

CREATE TABLE label_block (
    block   BIGINT NOT NULL,         -- of block_run
    label   VARCHAR NOT NULL,        -- of token_label
    value   VARCHAR NOT NULL,        -- likewise
    layer   USMALLINT NOT NULL,
    expert  USMALLINT NOT NULL,
    opening BOOLEAN NOT NULL,        -- about position 0
    choices BIGINT                   -- column of label_totals
);

-- Which labels label_block holds of a block, and how they stood when they were summed: labels may be written to a run later.
CREATE TABLE block_label (
    block BIGINT NOT NULL,           -- of block_run
    label VARCHAR NOT NULL,          -- of token_label
    mark  UBIGINT NOT NULL           -- column of label_marks
);

-- Choices by layer, token id and expert over many runs of one model (a pool), without position 0.  A question begins with a pool
-- and counts only the runs by which it differs; see macros/pools.sql.  A run that is deleted is taken off (Store.delete does it).
CREATE TABLE pool_run (
    pool BIGINT NOT NULL,            -- the pool: its first run
    run  BIGINT NOT NULL             -- one of its runs; a run is in one pool at most
);

CREATE TABLE token_pool (
    pool       BIGINT NOT NULL,      -- of pool_run
    layer      USMALLINT NOT NULL,
    token      INTEGER NOT NULL,     -- id in the vocabulary
    tokens     BIGINT NOT NULL,      -- choice sets of tokens with that id
    choices    BIGINT NOT NULL,      -- and their slots
    spread     DOUBLE NOT NULL,      -- sum over the experts of n ln n, n = choices_of
    best       BIGINT NOT NULL,      -- the expert that most often has rank 0: the largest best_of
    experts    USMALLINT[] NOT NULL, -- experts that were chosen
    choices_of UINTEGER[] NOT NULL,  -- slots of each of them
    tops_of    UINTEGER[] NOT NULL   -- and those of rank 0
);

CREATE TABLE expert_pool (
    pool    BIGINT NOT NULL,         -- of pool_run
    layer   USMALLINT NOT NULL,
    expert  USMALLINT NOT NULL,
    choices BIGINT NOT NULL,         -- sum over the ids of choices_of
    tops    BIGINT NOT NULL          -- sum over the ids of tops_of
);

-- The choice of one token in one layer as one row: experts and weights in slot order.
CREATE VIEW choice AS
SELECT run, step, position, layer, list(expert ORDER BY slot) AS experts, list(weight ORDER BY slot) AS weights
FROM routing
GROUP BY run, step, position, layer;
