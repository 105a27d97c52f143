-- Migration: 017
-- Description: Workers tell how far the log was when they were seen
-- Date: 2026-11-24
-- Author: position-ledger maintainers
-- Related: docs/how-to/standby.md, docs/ARCHITECTURE.md (The log and its feed)
-- Summary: A standby knows neither the clock nor the numbers of its primary. Each worker tells both once a second, so that a
--   reader of the standby can tell whether it has all that was recorded before a time.
-- Rollback: The column goes. A standby then answers for tokens and no longer for times.

-- forward

ALTER TABLE projection_workers ADD COLUMN mark bigint CHECK (mark >= 0);
COMMENT ON COLUMN projection_workers.mark IS 'The highest number handed out, read after the clock of seen_at: whatever was recorded before seen_at has a number up to it. Null: by a release that did not tell.';

-- verify

SELECT count(*) = 1 FROM information_schema.columns WHERE table_schema = current_schema()
   AND table_name = 'projection_workers' AND column_name = 'mark' AND is_nullable = 'YES';
SELECT has_column_privilege('position_ledger_projector', a.attrelid, a.attnum, 'INSERT, UPDATE')
  FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
 WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = 'projection_workers' AND a.attname = 'mark';

-- rollback

ALTER TABLE projection_workers DROP COLUMN mark;
