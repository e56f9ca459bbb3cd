CREATE SCHEMA IF NOT EXISTS rejoin;

-- One row per life of a stream. `epoch` is the unsigned 64-bit epoch of a
-- cursor, bit by bit.
CREATE TABLE rejoin.epochs (
    epoch_no        integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shard           integer     NOT NULL,
    -- Counts the epochs of a shard from 1.
    ordinal         integer     NOT NULL,
    epoch           bigint      NOT NULL UNIQUE,
    -- Positions up to here belong to the epoch before.
    start_seq       bigint      NOT NULL,
    -- The archive is complete after floor_seq and up to watermark.
    floor_seq       bigint      NOT NULL,
    watermark       bigint      NOT NULL,
    -- The newest archived message: proof, later, that it is still this epoch.
    witness_seq     bigint,
    witness_time_ms bigint,
    -- The bucket of the newest message; buckets never decrease with seq.
    bucket          integer     NOT NULL DEFAULT 0,
    -- The highest sequence that anyone saw in the stream, and when last.
    observed_seq    bigint      NOT NULL,
    observed_at     timestamptz NOT NULL DEFAULT now(),
    -- Everything that the stream stored before this time is archived.
    covered_ms      bigint      NOT NULL DEFAULT 0,
    began_at        timestamptz NOT NULL DEFAULT now(),
    closed_at       timestamptz,
    -- Of a closed epoch: whether all of it was archived.
    complete        boolean     NOT NULL DEFAULT false,
    UNIQUE (shard, ordinal),
    CHECK (start_seq <= floor_seq AND floor_seq <= watermark)
) WITH (fillfactor = 50);

-- The archive. `bucket` is the partition's first hour since the Unix epoch.
-- It follows time_ms but never decreases with seq, even if a clock does: so
-- (bucket, seq) is the order of the stream, and a page is an ordered walk
-- over the partitions from the cursor's on, which stops at its limit.
CREATE TABLE rejoin.messages (
    epoch_no    integer NOT NULL,
    bucket      integer NOT NULL,
    seq         bigint  NOT NULL,
    time_ms     bigint  NOT NULL,
    -- The message id if it is a UUID, else a hash of it; NULL without an id.
    id_key      uuid,
    channel     text COLLATE "C" NOT NULL,
    -- The id, where id_key is only its hash.
    id          text COLLATE "C",
    -- Whose id it is: u.<user> or s.<key>.
    scope       text COLLATE "C",
    kind        text COLLATE "C" NOT NULL,
    sender      text COLLATE "C",
    traceparent text COLLATE "C",
    data        bytea   NOT NULL,
    PRIMARY KEY (channel, epoch_no, bucket, seq)
) PARTITION BY RANGE (bucket);

-- For retried publishes. UUIDv7 ids ascend, so inserts stay on few pages.
CREATE INDEX messages_id ON rejoin.messages (id_key) WHERE id_key IS NOT NULL;
-- For epoch forensics and `rejoin check`: a few pages per partition.
CREATE INDEX messages_position ON rejoin.messages
    USING brin (epoch_no, seq) WITH (pages_per_range = 32);

-- Which part of an epoch lies in which bucket.
CREATE TABLE rejoin.segments (
    epoch_no  integer NOT NULL REFERENCES rejoin.epochs,
    bucket    integer NOT NULL,
    first_seq bigint  NOT NULL,
    last_seq  bigint  NOT NULL,
    PRIMARY KEY (epoch_no, bucket)
) WITH (fillfactor = 50);

-- The partitions and their spans in hours since the Unix epoch.
CREATE TABLE rejoin.partitions (
    bucket     integer PRIMARY KEY,
    bucket_end integer NOT NULL,
    -- Set when its messages expired; it is dropped some time later, so that
    -- no running query loses rows.
    expired_at timestamptz
);

-- Who may write a shard's archive.
CREATE TABLE rejoin.archiver_leases (
    shard      integer     PRIMARY KEY,
    holder     text        NOT NULL,
    token      bigint      NOT NULL,
    ttl_ms     bigint      NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);
