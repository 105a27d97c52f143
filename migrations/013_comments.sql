-- Migration: 013
-- Description: A comment on every column that has none
-- Date: 2026-11-22
-- Author: position-ledger maintainers
-- Related: docs/reference/schema/
-- Summary: The reference pages of the schema are made from these comments. Nothing but comments changes, so no table is
--   rebuilt.
-- Rollback: Takes the comments away again.

-- forward

COMMENT ON COLUMN feed.only_row IS 'Always true: the key that keeps the table at one row.';

COMMENT ON COLUMN projection_generations.generation_id IS 'Primary key; a later build has a higher number.';
COMMENT ON COLUMN projection_generations.projection IS 'Name of the projected table.';
COMMENT ON COLUMN projection_generations.created_at IS 'When the build began.';
COMMENT ON COLUMN projection_generations.activated_at IS 'When readers first saw it; null until then.';
COMMENT ON COLUMN projection_generations.retired_at IS 'When another generation took its place; null until then.';

COMMENT ON COLUMN projection_checkpoints.generation_id IS 'The generation that is projected.';
COMMENT ON COLUMN projection_checkpoints.shard IS 'Number of the shard in its generation, from 0.';

COMMENT ON COLUMN projection_workers.worker IS 'Host and process of the worker.';
COMMENT ON COLUMN projection_workers.fingerprints IS 'Of the definitions that its code has: the generations that it can project.';
COMMENT ON COLUMN projection_workers.started_at IS 'When it began, by the clock of the database.';
COMMENT ON COLUMN projection_workers.seen_at IS 'When it was heard of last, by the clock of the database.';

COMMENT ON COLUMN stream_snapshots.originator_id IS 'The stream.';
COMMENT ON COLUMN stream_snapshots.originator_version IS 'Version of the last event in the state.';
COMMENT ON COLUMN stream_snapshots.state IS 'The state after that event, encoded.';
COMMENT ON COLUMN stream_snapshots.stream_hash IS 'Hash of the stream up to that event: a state of another history is not used.';
COMMENT ON COLUMN stream_snapshots.opened_seq IS 'Number of the event that opened the stream.';
COMMENT ON COLUMN stream_snapshots.last_seq IS 'Number of the last event in the state.';

-- verify

SELECT count(*) = 0 FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
 WHERE c.relnamespace = current_schema()::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
   AND c.relname IN ('feed', 'projection_generations', 'projection_checkpoints', 'projection_workers', 'stream_snapshots')
   AND col_description(a.attrelid, a.attnum) IS NULL;

-- rollback

COMMENT ON COLUMN stream_snapshots.last_seq IS NULL;
COMMENT ON COLUMN stream_snapshots.opened_seq IS NULL;
COMMENT ON COLUMN stream_snapshots.stream_hash IS NULL;
COMMENT ON COLUMN stream_snapshots.state IS NULL;
COMMENT ON COLUMN stream_snapshots.originator_version IS NULL;
COMMENT ON COLUMN stream_snapshots.originator_id IS NULL;
COMMENT ON COLUMN projection_workers.seen_at IS NULL;
COMMENT ON COLUMN projection_workers.started_at IS NULL;
COMMENT ON COLUMN projection_workers.fingerprints IS NULL;
COMMENT ON COLUMN projection_workers.worker IS NULL;
COMMENT ON COLUMN projection_checkpoints.shard IS NULL;
COMMENT ON COLUMN projection_checkpoints.generation_id IS NULL;
COMMENT ON COLUMN projection_generations.retired_at IS NULL;
COMMENT ON COLUMN projection_generations.activated_at IS NULL;
COMMENT ON COLUMN projection_generations.created_at IS NULL;
COMMENT ON COLUMN projection_generations.projection IS NULL;
COMMENT ON COLUMN projection_generations.generation_id IS NULL;
COMMENT ON COLUMN feed.only_row IS NULL;
