-- Migration: 004
-- Description: Appends take their number before the clock, and refuse when a stream that was only read has moved on
-- Date: 2026-11-22
-- Author: position-ledger maintainers
-- Related: docs/ARCHITECTURE.md (The log and its feed)
-- Summary: An event that was recorded before T now has a number that was handed out before T, so a reader of what was
--   known at T waits for the numbers handed out so far and is sure to see it. append_events takes the streams that a
--   decision has read without appending to them, and refuses when one of them has a later version.
-- Rollback: Puts the functions of 001 back; no event is touched.

-- forward

-- What the functions keep as their search path, as in 001.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_catalog, pg_temp', true);

-- Number first, then the clock: were it the other way round, a writer that is paused in between would record an event
-- before T under a number beyond every number that a reader of T can wait for.
--
-- 5262419 is the first half of the two-integer advisory lock of a market's stream, the hash of the stream the second:
-- whoever appends to a market takes it alone, whoever has decided on a market shares it. So of two appends at once, one
-- that changes a market and one that has read it, the numbers always tell which came first. It can block, so it comes
-- before the lock of the feed; keys come before it, rows after it, and each kind is taken in one order.
CREATE OR REPLACE FUNCTION append_event(
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
    IF p_topic LIKE 'market.%' THEN
        PERFORM pg_advisory_xact_lock(5262419, hashtext(p_stream::text));
    END IF;
    PERFORM CASE WHEN f.inline = coalesce(current_setting('position_ledger.inline', true), '')
                 THEN pg_advisory_xact_lock_shared((f.namespace::bigint << 48)
                          | coalesce(pg_sequence_last_value('events_notification_id_seq'::regclass), 0))
                 ELSE refuse_mode(f.inline) END
       FROM feed AS f;
    IF p_version > 1 THEN
        SELECT e.recorded_at INTO previous_at FROM events AS e
         WHERE e.originator_id = p_stream AND e.originator_version = p_version - 1;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'stream % has no version %, so version % cannot follow', p_stream, p_version - 1, p_version
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
    END IF;
    seq := nextval('events_notification_id_seq');
    recorded := greatest(clock_timestamp(), previous_at + interval '1 microsecond');
    INSERT INTO events (originator_id, originator_version, topic, state, notification_id, event_id, recorded_at,
                        effective_at, stream_hash, metadata)
    VALUES (p_stream, p_version, p_topic, p_state, seq, p_event_id, recorded, coalesce(p_effective_at, recorded),
            p_stream_hash, p_metadata);
    RETURN NEXT;
END
$$;

DROP FUNCTION append_events(json, json);
-- p_reads: a JSON array of {"stream": …, "version": …}: what was read, and is not appended to.
CREATE FUNCTION append_events(p_events json, p_keys json, p_reads json DEFAULT NULL)
RETURNS TABLE (stream uuid, version bigint, seq bigint, recorded timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    guarded record;
    numbers bigint[];
    now_at timestamptz;
BEGIN
    IF p_keys IS NOT NULL THEN
        INSERT INTO append_keys (key, digest, appended)
        SELECT k.key, decode(k.digest, 'hex'), k.appended
          FROM json_to_recordset(p_keys) AS k (key text, digest text, appended jsonb)
         ORDER BY k.key COLLATE "C";
    END IF;
    FOR guarded IN
        SELECT hashtext(w.stream::text) AS place, bool_or(w.is_appended) AS is_appended
          FROM (SELECT g.stream, true AS is_appended
                  FROM json_to_recordset(p_events) AS g (stream uuid, topic text) WHERE g.topic LIKE 'market.%'
                 UNION ALL
                SELECT r.stream, false FROM json_to_recordset(p_reads) AS r (stream uuid)) AS w
         GROUP BY place ORDER BY place
    LOOP
        IF guarded.is_appended THEN
            PERFORM pg_advisory_xact_lock(5262419, guarded.place);
        ELSE
            PERFORM pg_advisory_xact_lock_shared(5262419, guarded.place);
        END IF;
    END LOOP;
    PERFORM CASE WHEN f.inline = coalesce(current_setting('position_ledger.inline', true), '')
                 THEN pg_advisory_xact_lock_shared((f.namespace::bigint << 48)
                          | coalesce(pg_sequence_last_value('events_notification_id_seq'::regclass), 0))
                 ELSE refuse_mode(f.inline) END
       FROM feed AS f;
    IF p_reads IS NOT NULL THEN
        SELECT r.stream, r.version INTO guarded
          FROM json_to_recordset(p_reads) AS r (stream uuid, version bigint)
          JOIN events AS e ON e.originator_id = r.stream AND e.originator_version = r.version + 1 LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'stream % has moved on since its version % was read', guarded.stream, guarded.version
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
    END IF;
    numbers := ARRAY(SELECT nextval('events_notification_id_seq') FROM generate_series(1, json_array_length(p_events)));
    now_at := clock_timestamp();
    RETURN QUERY
    WITH given AS (
        SELECT g.stream, g.version, g.topic, g.state, g.event_id, g.effective_at, g.stream_hash, g.metadata,
               min(g.version) OVER (PARTITION BY g.stream) AS first_version,
               row_number() OVER (PARTITION BY g.stream ORDER BY g.version) - 1 AS behind,
               row_number() OVER (ORDER BY g.stream, g.version) AS place
          FROM json_to_recordset(p_events)
               AS g (stream uuid, version bigint, topic text, state text, event_id uuid, effective_at timestamptz,
                     stream_hash text, metadata jsonb)
    ), timed AS MATERIALIZED (
        -- A version without its predecessor gets no time, and the NOT NULL of recorded_at refuses the append.
        -- In the order of stream and version, so that two appends to the same streams never deadlock.
        SELECT g.stream, g.version, g.topic, g.state, g.event_id, g.effective_at, g.stream_hash, g.metadata, g.place,
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
    SELECT t.stream, t.version, t.topic, convert_to(t.state, 'UTF8'), numbers[t.place], t.event_id,
           t.recorded_at, coalesce(t.effective_at, t.recorded_at), decode(t.stream_hash, 'hex'),
           coalesce(t.metadata, '{}')
      FROM timed AS t
    RETURNING e.originator_id, e.originator_version, e.notification_id, e.recorded_at;
END
$$;

REVOKE ALL ON FUNCTION append_events FROM PUBLIC;
GRANT EXECUTE ON FUNCTION append_events TO position_ledger_appender;

-- verify

SELECT strpos(p.prosrc, 'nextval(') BETWEEN 1 AND strpos(p.prosrc, 'clock_timestamp(') FROM pg_proc AS p
 WHERE p.oid = to_regprocedure(current_schema() || '.append_event(uuid, bigint, text, bytea, uuid, timestamptz, bytea, jsonb, text, bytea, jsonb)');
SELECT strpos(p.prosrc, 'nextval(') BETWEEN 1 AND strpos(p.prosrc, 'clock_timestamp(') FROM pg_proc AS p
 WHERE p.oid = to_regprocedure(current_schema() || '.append_events(json, json, json)');
SELECT to_regprocedure(current_schema() || '.append_events(json, json)') IS NULL;
SELECT count(*) = 2 FROM pg_proc WHERE pronamespace = current_schema()::regnamespace AND prosecdef
   AND proname IN ('append_event', 'append_events')
   AND 'search_path=' || quote_ident(current_schema()) || ', pg_catalog, pg_temp' = ANY (proconfig)
   AND has_function_privilege('position_ledger_appender', oid, 'EXECUTE')
   AND NOT has_function_privilege('position_ledger_reader', oid, 'EXECUTE');

-- rollback

SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_catalog, pg_temp', true);

DROP FUNCTION append_events(json, json, json);
CREATE OR REPLACE FUNCTION append_event(
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

REVOKE ALL ON FUNCTION append_events FROM PUBLIC;
GRANT EXECUTE ON FUNCTION append_events TO position_ledger_appender;
