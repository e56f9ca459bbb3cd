-- Revocations: made over HTTP, NATS or SQL, announced to every edge when they commit, and bounded, because every edge
-- keeps all of them.

-- API keys are in the configuration of the edges, hashed; nothing ever used this table.
DROP TABLE rejoin.api_keys;

DELETE FROM rejoin.revocations WHERE kind NOT IN ('user', 'token');

ALTER TABLE rejoin.revocations
    DROP CONSTRAINT revocations_kind_check,
    ADD CONSTRAINT revocations_kind CHECK (kind IN ('user', 'token')),
    ADD CONSTRAINT revocations_subject CHECK (
        CASE kind WHEN 'user' THEN subject ~ '^[A-Za-z0-9_-]{1,64}$' ELSE octet_length(subject) BETWEEN 1 AND 256 END),
    ALTER COLUMN before_ms SET DEFAULT (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
    -- The longest life that an edge can be told to accept of a token.
    ALTER COLUMN expires_at SET DEFAULT now() + interval '400 days';

CREATE FUNCTION rejoin.announce_revocations() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP IN ('INSERT', 'UPDATE') THEN
        PERFORM pg_notify('rejoin_revocations', json_build_object(
            'kind', NEW.kind, 'subject', NEW.subject, 'before_ms', NEW.before_ms,
            'expires_ms', (extract(epoch FROM NEW.expires_at) * 1000)::bigint)::text);
    ELSIF OLD.expires_at > now() THEN
        -- What has expired is forgotten everywhere without being told.
        PERFORM pg_notify('rejoin_revocations',
            json_build_object('kind', OLD.kind, 'subject', OLD.subject, 'lifted', true)::text);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER announce_revocations AFTER INSERT OR UPDATE OR DELETE ON rejoin.revocations
    FOR EACH ROW EXECUTE FUNCTION rejoin.announce_revocations();

-- A million take some 100 MB in every edge.
CREATE FUNCTION rejoin.revocations_max() RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT 1000000';

CREATE FUNCTION rejoin.bound_revocations() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (SELECT count(*) FROM (SELECT FROM rejoin.revocations LIMIT rejoin.revocations_max() + 1) counted)
        > rejoin.revocations_max()
    THEN
        RAISE EXCEPTION 'more than % revocations: change the key that signs the tokens instead',
            rejoin.revocations_max() USING ERRCODE = 'program_limit_exceeded';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER bound_revocations AFTER INSERT ON rejoin.revocations
    FOR EACH STATEMENT EXECUTE FUNCTION rejoin.bound_revocations();

-- For the application's own transactions. Whoever may publish may not revoke: EXECUTE has to be granted.
CREATE FUNCTION rejoin.revoke_user(user_id text, before timestamptz DEFAULT clock_timestamp()) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO rejoin.revocations AS old (kind, subject, before_ms)
    VALUES ('user', user_id, (extract(epoch FROM before) * 1000)::bigint)
    ON CONFLICT (kind, subject) DO UPDATE SET
        before_ms = greatest(old.before_ms, excluded.before_ms),
        expires_at = greatest(old.expires_at, excluded.expires_at)
$$;

CREATE FUNCTION rejoin.revoke_token(token_id text) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO rejoin.revocations AS old (kind, subject) VALUES ('token', token_id)
    ON CONFLICT (kind, subject) DO UPDATE SET expires_at = greatest(old.expires_at, excluded.expires_at)
$$;

REVOKE EXECUTE ON FUNCTION rejoin.revoke_user(text, timestamptz), rejoin.revoke_token(text) FROM PUBLIC;

-- Tickets that were used, on whichever edge; for as long as they are valid and some minutes more.
CREATE TABLE rejoin.used_tickets (
    id         text        COLLATE "C" PRIMARY KEY CHECK (octet_length(id) BETWEEN 1 AND 64),
    expires_at timestamptz NOT NULL
);
CREATE INDEX used_tickets_expiry ON rejoin.used_tickets (expires_at);
