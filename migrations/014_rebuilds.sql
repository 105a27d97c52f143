-- Migration: 014
-- Description: Rebuilds that run and ran: how far each is, at which pace, and what an operator wants of it
-- Date: 2026-11-22
-- Author: position-ledger maintainers
-- Related: docs/how-to/rebuild.md, src/position_ledger/projection/rebuilds.py
-- Summary: One row for each generation that was built. The process that rebuilds writes down its progress; whoever loads
--   reads from the row whether it is to go on, and takes its turn of the pace, which so holds over processes and machines.
-- Rollback: Drops the table. Only the record of rebuilds is lost; a rebuild that was interrupted still goes on.

-- forward

CREATE TABLE projection_rebuilds (
    generation_id  integer          NOT NULL,
    projection     text             NOT NULL,
    state          text             NOT NULL DEFAULT 'loading',
    wanted         text             NOT NULL DEFAULT 'run',
    processes      integer          NOT NULL DEFAULT 1,
    throttle_per_s double precision,
    next_at        timestamptz      NOT NULL DEFAULT '-infinity',
    yields_to      text,
    events_total   bigint           NOT NULL DEFAULT 0,
    events_done    bigint           NOT NULL DEFAULT 0,
    events_per_s   double precision,
    eta            timestamptz,
    started_at     timestamptz      NOT NULL DEFAULT clock_timestamp(),
    updated_at     timestamptz      NOT NULL DEFAULT clock_timestamp(),
    finished_at    timestamptz,
    after_load_s   double precision,
    problem        text,
    CONSTRAINT projection_rebuilds_pkey PRIMARY KEY (generation_id),
    CONSTRAINT projection_rebuilds_generation FOREIGN KEY (generation_id) REFERENCES projection_generations,
    CONSTRAINT projection_rebuilds_state CHECK (state IN ('loading', 'indexing', 'catching up', 'verifying', 'swapping',
                                                          'built', 'done', 'failed', 'cancelled')),
    CONSTRAINT projection_rebuilds_wanted CHECK (wanted IN ('run', 'pause', 'cancel')),
    CONSTRAINT projection_rebuilds_pace CHECK (processes >= 1 AND throttle_per_s > 0 AND events_per_s >= 0),
    CONSTRAINT projection_rebuilds_progress CHECK (events_done BETWEEN 0 AND events_total AND after_load_s >= 0),
    CONSTRAINT projection_rebuilds_finished CHECK ((finished_at IS NOT NULL)
                                                   = (state IN ('built', 'done', 'failed', 'cancelled'))),
    CONSTRAINT projection_rebuilds_problem CHECK ((problem IS NOT NULL) = (state = 'failed'))
) WITH (fillfactor = 50);

COMMENT ON TABLE projection_rebuilds IS 'Rebuilds that run and ran, one row for each generation that was built.';
COMMENT ON COLUMN projection_rebuilds.generation_id IS 'Primary key: the generation that is built.';
COMMENT ON COLUMN projection_rebuilds.projection IS 'Name of the projected table.';
COMMENT ON COLUMN projection_rebuilds.state IS 'loading -> indexing -> catching up -> verifying -> swapping -> done, or built without a swap; failed, cancelled.';
COMMENT ON COLUMN projection_rebuilds.wanted IS 'What an operator wants of it: run, pause or cancel.';
COMMENT ON COLUMN projection_rebuilds.processes IS 'Loading processes of the command itself; worker machines may help beside them.';
COMMENT ON COLUMN projection_rebuilds.throttle_per_s IS 'Events a second that all loading processes together may read; null for no limit.';
COMMENT ON COLUMN projection_rebuilds.next_at IS 'With a throttle: when the next events may be read. Each process that read some moves it on.';
COMMENT ON COLUMN projection_rebuilds.yields_to IS 'Why the load stands still by itself, in words: projecting or a replica is behind. Null while it runs.';
COMMENT ON COLUMN projection_rebuilds.events_total IS 'Events that are to be loaded; an estimate until they are.';
COMMENT ON COLUMN projection_rebuilds.events_done IS 'Events that are loaded, about once a second.';
COMMENT ON COLUMN projection_rebuilds.events_per_s IS 'Events loaded a second in the last minute, without the time in which it was held.';
COMMENT ON COLUMN projection_rebuilds.eta IS 'When all of it will be done, swap included; null while nothing is known.';
COMMENT ON COLUMN projection_rebuilds.started_at IS 'When it began.';
COMMENT ON COLUMN projection_rebuilds.updated_at IS 'When the process that rebuilds wrote last.';
COMMENT ON COLUMN projection_rebuilds.finished_at IS 'When it ended, in whatever way; null until then.';
COMMENT ON COLUMN projection_rebuilds.after_load_s IS 'Seconds from the end of the load to the end, without pauses: what the next estimate begins with.';
COMMENT ON COLUMN projection_rebuilds.problem IS 'Why it failed, in a sentence.';

GRANT SELECT ON projection_rebuilds TO position_ledger_reader, position_ledger_projector;
GRANT UPDATE (next_at) ON projection_rebuilds TO position_ledger_projector;

-- verify

SELECT count(*) = 17 FROM pg_attribute
 WHERE attrelid = to_regclass(current_schema() || '.projection_rebuilds') AND attnum > 0 AND NOT attisdropped;
SELECT count(*) = 6 FROM pg_constraint
 WHERE conrelid = to_regclass(current_schema() || '.projection_rebuilds') AND contype = 'c';

-- rollback

DROP TABLE projection_rebuilds;
