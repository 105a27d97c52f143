-- Migration: 001
-- Description: The event log: append-only events, idempotency keys, the lossless append
-- Date: 2026-11-22
-- Author: position-ledger maintainers
-- Related: docs/ARCHITECTURE.md (The log and its feed)
-- Summary: Creates the roles, the events table in the shape that the eventsourcing library reads, the function
--   that is the only way to append to it, the keys that make repeated commands harmless, and the fences
--   that keep every stored event as it was written.
-- Rollback: Drops everything above. All events are lost; the roles stay, they belong to the cluster.

-- forward

-- What the functions below keep as their search path, whatever the session's own is. With pg_temp last: unnamed it would
-- come first, and a session's temporary table called events or feed would stand in for the ledger's.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_catalog, pg_temp', true);

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['position_ledger_reader', 'position_ledger_appender', 'position_ledger_projector',
                                  'position_ledger_app'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- another database of this cluster was faster
            END;
        END IF;
    END LOOP;
    -- The app role is what trading and worker processes run as: it may append, project and read, and nothing else.
    IF NOT pg_has_role('position_ledger_app', 'position_ledger_appender', 'MEMBER')
       OR NOT pg_has_role('position_ledger_app', 'position_ledger_projector', 'MEMBER')
       OR NOT pg_has_role('position_ledger_app', 'position_ledger_reader', 'MEMBER') THEN
        GRANT position_ledger_reader, position_ledger_appender, position_ledger_projector TO position_ledger_app;
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO position_ledger_reader, position_ledger_appender, position_ledger_projector',
                   current_schema());
END
$$;

-- Which advisory-lock namespace each ledger of this database uses for its feed: shared by all schemas of the database.
CREATE SCHEMA IF NOT EXISTS position_ledger_shared;
CREATE TABLE IF NOT EXISTS position_ledger_shared.feed_namespaces (
    namespace   smallint GENERATED ALWAYS AS IDENTITY (MAXVALUE 32767) PRIMARY KEY,
    schema_name text NOT NULL UNIQUE
);
INSERT INTO position_ledger_shared.feed_namespaces (schema_name) VALUES (current_schema());

CREATE TABLE feed (
    only_row  boolean  PRIMARY KEY DEFAULT true CHECK (only_row),
    namespace smallint NOT NULL CHECK (namespace > 0),
    inline    text     NOT NULL DEFAULT '' CHECK (inline ~ '^([1-9][0-9]*(,[1-9][0-9]*)*)?$')
);
INSERT INTO feed (namespace)
SELECT namespace FROM position_ledger_shared.feed_namespaces WHERE schema_name = current_schema();
COMMENT ON TABLE feed IS 'What every append reads: one row, written by the migration.';
COMMENT ON COLUMN feed.namespace IS 'The advisory-lock namespace of this ledger''s feed.';
COMMENT ON COLUMN feed.inline IS 'Ids of the generations that are projected in the transaction of the append, ascending; changed only under an exclusive lock of this table, so while nobody is in an append.';

CREATE SEQUENCE events_notification_id_seq AS bigint CACHE 1;

CREATE TABLE events (
    originator_id      uuid        NOT NULL,
    originator_version bigint      NOT NULL CHECK (originator_version >= 1),
    topic              text        NOT NULL,
    state              bytea       NOT NULL,
    notification_id    bigint      NOT NULL,
    event_id           uuid        NOT NULL,
    recorded_at        timestamptz NOT NULL,
    effective_at       timestamptz NOT NULL,
    stream_hash        bytea       NOT NULL CHECK (octet_length(stream_hash) = 32),
    metadata           jsonb       NOT NULL DEFAULT '{}',
    PRIMARY KEY (originator_id, originator_version)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);
ALTER SEQUENCE events_notification_id_seq OWNED BY events.notification_id;
CREATE UNIQUE INDEX events_notification_id_idx ON events (notification_id);

COMMENT ON TABLE events IS 'The log: every fact in the order in which it was numbered. Append-only, written by append_events() alone.';
COMMENT ON COLUMN events.originator_id IS 'The stream: one position or one book.';
COMMENT ON COLUMN events.originator_version IS 'Place in the stream, 1, 2, 3 … without gaps.';
COMMENT ON COLUMN events.topic IS 'Stable name of the kind of event.';
COMMENT ON COLUMN events.state IS 'The event as plain JSON, UTF-8; see event_log for it as jsonb.';
COMMENT ON COLUMN events.notification_id IS 'Global sequence number; also the id of the version that the event makes in a projected table.';
COMMENT ON COLUMN events.event_id IS 'Identity of the event, made by the writer: tells whether an append whose answer was lost took place.';
COMMENT ON COLUMN events.recorded_at IS 'When the ledger learned it: the database clock, strictly increasing in each stream.';
COMMENT ON COLUMN events.effective_at IS 'When it happened at the venue.';
COMMENT ON COLUMN events.stream_hash IS 'SHA-256 over the hash of the previous event of the stream and this event: evidence against tampering.';
COMMENT ON COLUMN events.metadata IS 'command_id, causation_id, correlation_id and actor, where given.';

-- The type that the library's recorder looks for when it is constructed.
CREATE TYPE stored_event_uuid AS (originator_id uuid, originator_version bigint, topic text, state bytea);

CREATE TABLE append_keys (
    key      text COLLATE "C" PRIMARY KEY,
    digest   bytea NOT NULL CHECK (octet_length(digest) = 32),
    appended jsonb NOT NULL
);
COMMENT ON TABLE append_keys IS 'What makes a repeat harmless: a command id or fill identity, the digest of its content, and what it appended.';
COMMENT ON COLUMN append_keys.key IS '«command:» or «fill:» and the identity, unique for ever.';
COMMENT ON COLUMN append_keys.digest IS 'SHA-256 of the canonical content: the same key with other content is a conflict.';
COMMENT ON COLUMN append_keys.appended IS 'Streams and versions of the first append, from which its result is read again.';

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on %.% is refused: it is append-only, record a correction as a new event',
        TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON events FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON events FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON append_keys FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON append_keys FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The highest number handed out so far. Never SELECT last_value: nextval writes it 32 ahead for a moment.
CREATE FUNCTION feed_mark() RETURNS bigint LANGUAGE sql VOLATILE SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$ SELECT coalesce(pg_sequence_last_value('events_notification_id_seq'::regclass), 0) $$;

-- What an append meets that was written for other modes of projecting than there are now: see append_event.
CREATE FUNCTION refuse_mode(p_inline text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'append refused: generations projected inline are {%}, this append projects {%}',
        p_inline, current_setting('position_ledger.inline', true) USING ERRCODE = 'PL001';
END
$$;

-- The two doors into the log, and the only ones. One call is one transaction; the order of its steps is what makes the
-- feed lossless: what can block first, then the shared lock that carries the number before ours, then our numbers.
-- An append says in position_ledger.inline which generations it projects in its own transaction (none: unset); reading
-- feed keeps that list from changing until it ends.

-- One event: the hot path, scalars only (arrays would double what it costs the client).
CREATE FUNCTION append_event(
    p_stream uuid, p_version bigint, p_topic text, p_state bytea, p_event_id uuid, p_effective_at timestamptz,
    p_stream_hash bytea, p_metadata jsonb, p_key text, p_digest bytea, p_appended jsonb
) RETURNS TABLE (seq bigint, recorded timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    previous_at timestamptz;
BEGIN
    IF p_key IS NOT NULL THEN
        INSERT INTO append_keys (key, digest, appended) VALUES (p_key, p_digest, p_appended);
    END IF;
    PERFORM CASE WHEN f.inline = coalesce(current_setting('position_ledger.inline', true), '')
                 THEN pg_advisory_xact_lock_shared((f.namespace::bigint << 48)
                          | coalesce(pg_sequence_last_value('events_notification_id_seq'::regclass), 0))
                 ELSE refuse_mode(f.inline) END
       FROM feed AS f;
    recorded := clock_timestamp();
    IF p_version > 1 THEN
        SELECT e.recorded_at INTO previous_at FROM events AS e
         WHERE e.originator_id = p_stream AND e.originator_version = p_version - 1;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'stream % has no version %, so version % cannot follow', p_stream, p_version - 1, p_version
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        recorded := greatest(recorded, previous_at + interval '1 microsecond');
    END IF;
    seq := nextval('events_notification_id_seq');
    INSERT INTO events (originator_id, originator_version, topic, state, notification_id, event_id, recorded_at,
                        effective_at, stream_hash, metadata)
    VALUES (p_stream, p_version, p_topic, p_state, seq, p_event_id, recorded, coalesce(p_effective_at, recorded),
            p_stream_hash, p_metadata);
    RETURN NEXT;
END
$$;

-- Many events of any number of streams, all or none: p_events and p_keys are JSON arrays of objects.
CREATE FUNCTION append_events(p_events json, p_keys json) RETURNS TABLE (stream uuid, version bigint, seq bigint, recorded timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    now_at timestamptz;
BEGIN
    IF p_keys IS NOT NULL THEN
        INSERT INTO append_keys (key, digest, appended)
        SELECT k.key, decode(k.digest, 'hex'), k.appended
          FROM json_to_recordset(p_keys) AS k (key text, digest text, appended jsonb)
         ORDER BY k.key COLLATE "C";
    END IF;
    PERFORM CASE WHEN f.inline = coalesce(current_setting('position_ledger.inline', true), '')
                 THEN pg_advisory_xact_lock_shared((f.namespace::bigint << 48)
                          | coalesce(pg_sequence_last_value('events_notification_id_seq'::regclass), 0))
                 ELSE refuse_mode(f.inline) END
       FROM feed AS f;
    now_at := clock_timestamp();
    RETURN QUERY
    WITH given AS (
        SELECT g.stream, g.version, g.topic, g.state, g.event_id, g.effective_at, g.stream_hash, g.metadata,
               min(g.version) OVER (PARTITION BY g.stream) AS first_version,
               row_number() OVER (PARTITION BY g.stream ORDER BY g.version) - 1 AS behind
          FROM json_to_recordset(p_events)
               AS g (stream uuid, version bigint, topic text, state text, event_id uuid, effective_at timestamptz,
                     stream_hash text, metadata jsonb)
    ), timed AS MATERIALIZED (
        -- A version without its predecessor gets no time, and the NOT NULL of recorded_at refuses the append.
        -- In the order of stream and version, so that two appends to the same streams never deadlock.
        SELECT g.stream, g.version, g.topic, g.state, g.event_id, g.effective_at, g.stream_hash, g.metadata,
               CASE WHEN g.version <> g.first_version + g.behind THEN NULL
                    WHEN g.first_version = 1 THEN now_at
                    WHEN p.recorded_at IS NOT NULL THEN greatest(now_at, p.recorded_at + interval '1 microsecond')
               END + g.behind * interval '1 microsecond' AS recorded_at
          FROM given AS g
          LEFT JOIN events AS p ON p.originator_id = g.stream AND p.originator_version = g.first_version - 1
         ORDER BY g.stream, g.version
    )
    INSERT INTO events AS e (originator_id, originator_version, topic, state, notification_id, event_id, recorded_at,
                             effective_at, stream_hash, metadata)
    SELECT t.stream, t.version, t.topic, convert_to(t.state, 'UTF8'), nextval('events_notification_id_seq'), t.event_id,
           t.recorded_at, coalesce(t.effective_at, t.recorded_at), decode(t.stream_hash, 'hex'),
           coalesce(t.metadata, '{}')
      FROM timed AS t
    RETURNING e.originator_id, e.originator_version, e.notification_id, e.recorded_at;
END
$$;

CREATE VIEW event_log AS
SELECT e.notification_id AS seq, e.originator_id AS stream, e.originator_version AS version, e.topic,
       convert_from(e.state, 'UTF8')::jsonb AS body, e.recorded_at, e.effective_at, e.event_id, e.metadata
  FROM events AS e;
COMMENT ON VIEW event_log IS 'The log for people: bodies as jsonb.';

REVOKE ALL ON FUNCTION append_event, append_events, feed_mark, refuse_change, refuse_mode FROM PUBLIC;
GRANT EXECUTE ON FUNCTION append_event, append_events TO position_ledger_appender;
GRANT EXECUTE ON FUNCTION feed_mark TO position_ledger_reader, position_ledger_appender, position_ledger_projector;
GRANT SELECT ON events, append_keys, feed, event_log TO position_ledger_reader, position_ledger_appender,
    position_ledger_projector;

-- verify

SELECT to_regclass(current_schema() || '.events') IS NOT NULL;
SELECT count(*) = 10 FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = 'events'
   AND is_nullable = 'NO';
SELECT count(*) = 2 FROM pg_trigger WHERE tgrelid = to_regclass(current_schema() || '.events') AND NOT tgisinternal;
SELECT feed_mark() = 0;
SELECT count(*) = 1 FROM feed;
SELECT NOT has_table_privilege('position_ledger_app', current_schema() || '.events', 'INSERT, UPDATE, DELETE, TRUNCATE');
SELECT count(*) = 3 FROM pg_proc WHERE pronamespace = current_schema()::regnamespace AND prosecdef
   AND 'search_path=' || quote_ident(current_schema()) || ', pg_catalog, pg_temp' = ANY (proconfig);
SELECT seqcache = 1 FROM pg_sequence WHERE seqrelid = to_regclass(current_schema() || '.events_notification_id_seq');

-- rollback

DROP VIEW event_log;
DROP FUNCTION append_events(json, json);
DROP FUNCTION append_event(uuid, bigint, text, bytea, uuid, timestamptz, bytea, jsonb, text, bytea, jsonb);
DROP FUNCTION refuse_mode(text);
DROP FUNCTION feed_mark();
DROP TABLE append_keys;
DROP TABLE events;
DROP TYPE stored_event_uuid;
DROP FUNCTION refuse_change();
DROP TABLE feed;
DELETE FROM position_ledger_shared.feed_namespaces WHERE schema_name = current_schema();
DO $$
BEGIN
    EXECUTE format('REVOKE USAGE ON SCHEMA %I FROM position_ledger_reader, position_ledger_appender, position_ledger_projector',
                   current_schema());
END
$$;
