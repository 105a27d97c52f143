-- Migration: 015
-- Description: Why a generation needs a rebuild, and how long a retired one is kept
-- Date: 2026-11-22
-- Author: position-ledger maintainers
-- Related: docs/how-to/generations.md
-- Summary: Beside the fingerprint, the parts that it is made of, so that status and check can say what changed. A retired
--   generation has the time until which one can go back to it; after that, whoever looks first drops it, a worker too,
--   through a function of the owner that can do nothing else.
-- Rollback: Columns and function go. Retired generations are then kept until the next rebuild; no row of a table is lost.

-- forward

SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_catalog, pg_temp', true);

ALTER TABLE projection_generations
    ADD COLUMN fingerprint_parts jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(fingerprint_parts) = 'object'),
    ADD COLUMN kept_until timestamptz;
COMMENT ON COLUMN projection_generations.fingerprint_parts IS 'What the fingerprint is made of: key, columns with defaults, code of each fold, version and shape of each event; empty: built by a release that did not tell.';
COMMENT ON COLUMN projection_generations.kept_until IS 'Of a retired one: until when one can go back to it. Past that time it is dropped.';

UPDATE projection_generations SET kept_until = clock_timestamp() + interval '72 hours' WHERE state = 'retired';

CREATE FUNCTION drop_expired_generations() RETURNS integer[] LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path FROM CURRENT SET lock_timeout = '100ms' AS $$
DECLARE
    expired record;
    dropped integer[] := '{}';
BEGIN
    FOR expired IN
        SELECT g.generation_id, g.projection, g.schema_name FROM projection_generations AS g
         WHERE g.state = 'retired' AND g.kept_until <= clock_timestamp() AND g.schema_name <> current_schema()
         ORDER BY g.generation_id
    LOOP
        -- Whoever rebuilds the table or rolls it back, and whoever projects into this generation, goes first.
        CONTINUE WHEN NOT pg_try_advisory_xact_lock(5262418, hashtext(expired.projection));
        CONTINUE WHEN NOT pg_try_advisory_xact_lock(5262407, expired.generation_id);
        BEGIN
            UPDATE projection_generations AS g SET state = 'dropped'
             WHERE g.generation_id = expired.generation_id AND g.state = 'retired' AND g.kept_until <= clock_timestamp();
            CONTINUE WHEN NOT FOUND;
            DELETE FROM projection_checkpoints AS c WHERE c.generation_id = expired.generation_id;
            EXECUTE format('DROP SCHEMA IF EXISTS %I CASCADE', expired.schema_name);
            dropped := dropped || expired.generation_id;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            NULL; -- somebody reads it: the next look
        END;
    END LOOP;
    RETURN dropped;
END
$$;
COMMENT ON FUNCTION drop_expired_generations IS 'Drops the retired generations whose time is over, with their tables, and answers their ids. Never waits: what is in use is left to the next call.';
REVOKE ALL ON FUNCTION drop_expired_generations FROM PUBLIC;
GRANT EXECUTE ON FUNCTION drop_expired_generations TO position_ledger_projector;

-- verify

SELECT count(*) = 2 FROM information_schema.columns WHERE table_schema = current_schema()
   AND table_name = 'projection_generations' AND column_name IN ('fingerprint_parts', 'kept_until');
-- expect: no rows
SELECT g.generation_id FROM projection_generations AS g WHERE g.state = 'retired' AND g.kept_until IS NULL;
SELECT p.prosecdef AND NOT has_function_privilege('public', p.oid, 'EXECUTE')
       AND has_function_privilege('position_ledger_projector', p.oid, 'EXECUTE')
  FROM pg_proc AS p WHERE p.pronamespace = current_schema()::regnamespace AND p.proname = 'drop_expired_generations';

-- rollback

DROP FUNCTION drop_expired_generations();
ALTER TABLE projection_generations DROP COLUMN kept_until, DROP COLUMN fingerprint_parts;
