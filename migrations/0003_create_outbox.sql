-- Messages that applications publish in their own transactions.
CREATE TABLE rejoin.outbox (
    entry   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid     xid8   NOT NULL DEFAULT pg_current_xact_id(),
    -- The order of commits per channel; NULL until the transaction commits.
    place   bigint,
    channel text   NOT NULL,
    kind    text   NOT NULL,
    data    text   NOT NULL,
    id      uuid   NOT NULL,
    -- Why the message can never be published, once that is known.
    refused text
) WITH (fillfactor = 50);
CREATE SEQUENCE rejoin.outbox_place;
CREATE INDEX outbox_staged ON rejoin.outbox (xid) WHERE place IS NULL;
CREATE INDEX outbox_placed ON rejoin.outbox (place) WHERE place IS NOT NULL AND refused IS NULL;

-- Runs when a transaction commits. It takes the lock of each channel's lane,
-- in ascending order so that two transactions cannot deadlock, and then a
-- place: a transaction that gets a later place in a channel commits later.
-- The lanes bound the number of locks a transaction holds.
CREATE FUNCTION rejoin.place_outbox() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    lane integer;
BEGIN
    -- The first row's call places all rows of the transaction.
    PERFORM 1 FROM rejoin.outbox WHERE entry = NEW.entry AND place IS NULL;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    FOR lane IN
        SELECT DISTINCT hashtext(o.channel) & 255 FROM rejoin.outbox o
        WHERE o.xid = pg_current_xact_id() AND o.place IS NULL ORDER BY 1
    LOOP
        PERFORM pg_advisory_xact_lock(1919249258, lane);
    END LOOP;
    WITH placed AS MATERIALIZED (
        SELECT staged.entry, nextval('rejoin.outbox_place') AS place
        FROM (
            SELECT o.entry FROM rejoin.outbox o
            WHERE o.xid = pg_current_xact_id() AND o.place IS NULL ORDER BY o.entry
        ) staged
    )
    UPDATE rejoin.outbox o SET place = placed.place FROM placed WHERE o.entry = placed.entry;
    PERFORM pg_notify('rejoin_outbox', '');
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER place_outbox AFTER INSERT ON rejoin.outbox
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION rejoin.place_outbox();

-- A UUID of version 7 (RFC 9562) of the present millisecond.
CREATE FUNCTION rejoin.uuidv7() RETURNS uuid
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT encode(
        set_bit(set_bit(
            overlay(
                uuid_send(gen_random_uuid())
                PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                FROM 1 FOR 6),
            52, 1), 53, 1),
        'hex')::uuid
$$;

-- Publishes a message if and only if the calling transaction commits, after
-- everything that was committed to its channel before. Returns the message id.
-- The same id published again yields no second message.
--
-- Callers need USAGE on the schema and nothing else.
CREATE FUNCTION rejoin.publish(channel text, type text, data jsonb, id uuid DEFAULT NULL) RETURNS uuid
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    message_id uuid := coalesce(publish.id, rejoin.uuidv7());
BEGIN
    IF publish.channel IS NULL OR publish.channel !~ '^[A-Za-z0-9_-]{1,64}:[A-Za-z0-9_-]{1,64}$' THEN
        RAISE EXCEPTION 'not a channel: expected namespace:id, got %', quote_nullable(publish.channel)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF publish.type !~ '^[A-Za-z0-9_.:-]{0,64}$' THEN
        RAISE EXCEPTION 'a message type has at most 64 bytes of A-Z a-z 0-9 _ - . :'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO rejoin.outbox (channel, kind, data, id)
    VALUES (publish.channel, coalesce(publish.type, ''), coalesce(publish.data, 'null')::text, message_id);
    RETURN message_id;
END $$;
