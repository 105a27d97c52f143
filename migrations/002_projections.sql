-- Migration: 002
-- Description: Generations, checkpoints and leases of the projected tables; snapshots of streams
-- Date: 2026-11-22
-- Author: position-ledger maintainers
-- Related: docs/ARCHITECTURE.md (Projecting, Rebuild)
-- Summary: A physical table belongs to one generation of its projection. Each generation has one checkpoint for each
--   shard of the streams; the checkpoint row is also the lease under which a worker writes, with a fencing token.
--   Snapshots of long streams keep loading them short.
-- Rollback: Drops the tables. Nothing is lost that a rebuild would not make again.

-- forward

CREATE TABLE projection_generations (
    generation_id  integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    projection     text        NOT NULL,
    fingerprint    text        NOT NULL CHECK (fingerprint <> ''),
    columns        text[]      NOT NULL,
    schema_name    text        NOT NULL,
    state          text        NOT NULL CHECK (state IN ('building', 'active', 'retired', 'dropped')),
    mode           text        NOT NULL DEFAULT 'worker' CHECK (mode IN ('worker', 'inline')),
    release        text        NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    activated_at   timestamptz,
    retired_at     timestamptz,
    migrations     integer[]   NOT NULL DEFAULT '{}',
    unvalidated    jsonb       NOT NULL DEFAULT '[]'
);
CREATE UNIQUE INDEX projection_generations_one_active ON projection_generations (projection) WHERE state = 'active';
CREATE UNIQUE INDEX projection_generations_one_building ON projection_generations (projection) WHERE state = 'building';
CREATE UNIQUE INDEX projection_generations_one_table ON projection_generations (schema_name, projection)
    WHERE state <> 'dropped';

COMMENT ON TABLE projection_generations IS 'Which physical table belongs to which code: one row for each time a projection was built.';
COMMENT ON COLUMN projection_generations.fingerprint IS 'Of the definition: fold code, columns and event versions; only code that has it writes the table.';
COMMENT ON COLUMN projection_generations.columns IS 'Columns of the row type, in order.';
COMMENT ON COLUMN projection_generations.schema_name IS 'Where the table is: the schema of the ledger for the active one, its own for any other.';
COMMENT ON COLUMN projection_generations.state IS 'building -> active -> retired (kept current while its code runs) -> dropped.';
COMMENT ON COLUMN projection_generations.mode IS 'worker: projected after the commit; inline: in the transaction of the append. Never both.';
COMMENT ON COLUMN projection_generations.release IS 'Version of the software that built it: the one that can write it.';
COMMENT ON COLUMN projection_generations.unvalidated IS 'Foreign keys of other tables that its swap has put back and that are still to be validated: schema, table, name.';
COMMENT ON COLUMN projection_generations.migrations IS 'Numbers of the migrations that became applied with its swap.';

CREATE TABLE projection_checkpoints (
    generation_id integer     NOT NULL REFERENCES projection_generations,
    shard         smallint    NOT NULL CHECK (shard >= 0),
    stream_from   uuid        NOT NULL,
    stream_to     uuid        NOT NULL,
    position      bigint      NOT NULL CHECK (position >= 0),
    token         bigint      NOT NULL DEFAULT 0,
    holder        text,
    lease_until   timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (generation_id, shard),
    CHECK (stream_from <= stream_to)
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

COMMENT ON TABLE projection_checkpoints IS 'How far each shard of a generation has been projected, and who may write it.';
COMMENT ON COLUMN projection_checkpoints.stream_from IS 'First stream id of the shard; the shards of a generation cover all streams without overlap.';
COMMENT ON COLUMN projection_checkpoints.stream_to IS 'Last stream id of the shard, included.';
COMMENT ON COLUMN projection_checkpoints.position IS 'Every event numbered up to here is in the table or was none of its business.';
COMMENT ON COLUMN projection_checkpoints.token IS 'Fencing token: rises whenever the lease changes hands, so a worker that was paused can no longer write.';
COMMENT ON COLUMN projection_checkpoints.holder IS 'The worker that holds the lease.';
COMMENT ON COLUMN projection_checkpoints.lease_until IS 'By the clock of the database.';

CREATE FUNCTION refuse_step_back() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the checkpoint of generation %, shard % never moves back (position % to %, token % to %)',
        OLD.generation_id, OLD.shard, OLD.position, NEW.position, OLD.token, NEW.token
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;
CREATE TRIGGER forward_only BEFORE UPDATE ON projection_checkpoints FOR EACH ROW
    WHEN (NEW.position < OLD.position OR NEW.token < OLD.token) EXECUTE FUNCTION refuse_step_back();

CREATE TABLE projection_workers (
    worker       text        PRIMARY KEY,
    fingerprints text[]      NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at      timestamptz NOT NULL
) WITH (fillfactor = 40);
COMMENT ON TABLE projection_workers IS 'Who is alive: shards are shared out fairly among the workers that were seen lately.';

CREATE TABLE stream_snapshots (
    originator_id      uuid   PRIMARY KEY,
    originator_version bigint NOT NULL CHECK (originator_version >= 1),
    shape              text   NOT NULL,
    state              bytea  NOT NULL,
    stream_hash        bytea  NOT NULL CHECK (octet_length(stream_hash) = 32),
    opened_seq         bigint NOT NULL,
    last_seq           bigint NOT NULL
);
COMMENT ON TABLE stream_snapshots IS 'States of long streams, so that loading one stays short. Left by whoever had to read one; losing them costs time only.';
COMMENT ON COLUMN stream_snapshots.shape IS 'Version of the shape of the state: code of another shape reads the events instead.';

GRANT SELECT, INSERT, UPDATE ON stream_snapshots TO position_ledger_appender, position_ledger_projector;
GRANT SELECT ON stream_snapshots TO position_ledger_reader;
GRANT SELECT ON projection_generations, projection_checkpoints, projection_workers TO position_ledger_reader,
    position_ledger_projector;
GRANT UPDATE (position, token, holder, lease_until) ON projection_checkpoints TO position_ledger_projector;
GRANT INSERT, UPDATE, DELETE ON projection_workers TO position_ledger_projector;

-- verify

SELECT count(*) = 4 FROM pg_class WHERE relnamespace = current_schema()::regnamespace
   AND relname IN ('projection_generations', 'projection_checkpoints', 'projection_workers', 'stream_snapshots');
SELECT count(*) = 3 FROM pg_index WHERE indrelid = to_regclass(current_schema() || '.projection_generations')
   AND indisunique AND indisvalid AND NOT indisprimary;
SELECT count(*) = 1 FROM pg_trigger WHERE tgrelid = to_regclass(current_schema() || '.projection_checkpoints')
   AND tgname = 'forward_only';

-- rollback

DROP TABLE stream_snapshots;
DROP TABLE projection_workers;
DROP TABLE projection_checkpoints;
DROP FUNCTION refuse_step_back();
DROP TABLE projection_generations;
