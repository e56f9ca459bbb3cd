-- Room members: the users who may see `room:<id>`.
CREATE TABLE rejoin.members (
    room      text   COLLATE "C" NOT NULL CHECK (room ~ '^[A-Za-z0-9_-]{1,64}$'),
    user_id   text   COLLATE "C" NOT NULL CHECK (user_id ~ '^[A-Za-z0-9_-]{1,64}$'),
    joined_ms bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
    PRIMARY KEY (room, user_id)
);
CREATE INDEX members_user ON rejoin.members (user_id, room);

-- Announces every change, whoever makes it, when it commits.
CREATE FUNCTION rejoin.announce_members() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP IN ('DELETE', 'UPDATE') THEN
        PERFORM pg_notify('rejoin_members', '-' || OLD.room || ' ' || OLD.user_id);
    END IF;
    IF TG_OP IN ('INSERT', 'UPDATE') THEN
        PERFORM pg_notify('rejoin_members', '+' || NEW.room || ' ' || NEW.user_id);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER announce_members AFTER INSERT OR UPDATE OF room, user_id OR DELETE ON rejoin.members
    FOR EACH ROW EXECUTE FUNCTION rejoin.announce_members();

-- Positions per user, device and channel. A position is the ordinal of its
-- epoch * 2^48 + sequence: it grows as the log does, over epochs too.
CREATE TABLE rejoin.receipts (
    user_id    text        COLLATE "C" NOT NULL,
    channel    text        COLLATE "C" NOT NULL,
    device     text        COLLATE "C" NOT NULL,
    delivered  bigint,
    read       bigint,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, channel, device)
) WITH (fillfactor = 80);
