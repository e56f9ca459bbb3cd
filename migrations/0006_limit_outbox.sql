-- What the relays were told about messages that are published from SQL: one
-- row, written by each relay when it starts.
CREATE TABLE rejoin.outbox_limits (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- The longest payload, in bytes.
    data_bytes integer NOT NULL CHECK (data_bytes > 0)
);
INSERT INTO rejoin.outbox_limits (data_bytes) VALUES (65536);

-- The few that were committed and can not be published.
CREATE INDEX outbox_refused ON rejoin.outbox (entry) WHERE refused IS NOT NULL;

-- As before, and a payload that is too long is refused here: the application
-- can still roll back, or send less. What was accepted will be published.
CREATE OR REPLACE FUNCTION rejoin.publish(channel text, type text, data jsonb, id uuid DEFAULT NULL) RETURNS uuid
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    message_id uuid := coalesce(publish.id, rejoin.uuidv7());
    payload    text := coalesce(publish.data, 'null')::text;
    most       integer := (SELECT l.data_bytes FROM rejoin.outbox_limits l);
BEGIN
    IF publish.channel IS NULL OR publish.channel !~ '^[A-Za-z0-9_-]{1,64}:[A-Za-z0-9_-]{1,64}$' THEN
        RAISE EXCEPTION 'not a channel: expected namespace:id, got %', quote_nullable(publish.channel)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF publish.type !~ '^[A-Za-z0-9_.:-]{0,64}$' THEN
        RAISE EXCEPTION 'a message type has at most 64 bytes of A-Z a-z 0-9 _ - . :'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF octet_length(payload) > most THEN
        RAISE EXCEPTION 'a message has at most % bytes of data, this one has %', most, octet_length(payload)
            USING ERRCODE = 'program_limit_exceeded';
    END IF;
    INSERT INTO rejoin.outbox (channel, kind, data, id)
    VALUES (publish.channel, coalesce(publish.type, ''), payload, message_id);
    RETURN message_id;
END $$;
