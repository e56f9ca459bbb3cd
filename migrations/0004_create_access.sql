-- API keys of services. Only a hash is stored.
CREATE TABLE rejoin.api_keys (
    name       text        COLLATE "C" PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9_-]{1,64}$'),
    key_hash   bytea       NOT NULL UNIQUE,
    -- What the key may do; its form is the edge's.
    grants     jsonb       NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);

-- Tokens of a subject that were issued before a time are not accepted.
CREATE TABLE rejoin.revocations (
    -- `user`, `session` or `token`.
    kind       text        COLLATE "C" NOT NULL CHECK (kind IN ('user', 'session', 'token')),
    subject    text        COLLATE "C" NOT NULL,
    before_ms  bigint      NOT NULL,
    -- When every token it concerns has expired by itself.
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (kind, subject)
);
CREATE INDEX revocations_expiry ON rejoin.revocations (expires_at);

-- Where a user's devices can be woken.
CREATE TABLE rejoin.push_endpoints (
    user_id    text        COLLATE "C" NOT NULL,
    device     text        COLLATE "C" NOT NULL,
    kind       text        COLLATE "C" NOT NULL,
    endpoint   jsonb       NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, device, kind)
);
