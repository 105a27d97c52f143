-- Migration: NNN
-- Description: positions remember their worst mark
-- Date: 2026-11-22
-- Author: position-ledger maintainers
-- Related: position_ledger/demo/team/projections/positions.py
-- Summary: A NOT NULL column without a default: its value for every old row is in the event history and nowhere else.
-- Rollback: The column goes; the marks stay in the log.

-- forward

ALTER TABLE positions ADD COLUMN worst_mark numeric(38,18) NOT NULL;
COMMENT ON COLUMN positions.worst_mark IS 'Worst price at which the position was ever valued, own side.';

-- verify

SELECT attnotnull AND format_type(atttypid, atttypmod) = 'numeric(38,18)' FROM pg_attribute
 WHERE attrelid = to_regclass(current_schema() || '.positions') AND attname = 'worst_mark';

-- rollback

ALTER TABLE positions DROP COLUMN worst_mark;
