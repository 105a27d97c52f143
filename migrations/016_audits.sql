-- Migration: 016
-- Description: Where the audit of the projected tables is, and what it has found
-- Date: 2026-11-22
-- Author: position-ledger maintainers
-- Related: docs/how-to/verify.md, docs/ARCHITECTURE.md (Proofs)
-- Summary: Workers compare the tables with the log all the time, a few hundred events a second. One row for each
--   generation says how far they are, one for each differing row what differs; both outlive the worker.
-- Rollback: Drops both tables. The next audit begins anew and finds again what still differs.

-- forward

CREATE TABLE projection_audits (
    generation_id integer     NOT NULL REFERENCES projection_generations,
    begun_stream  uuid        NOT NULL,
    next_stream   uuid        NOT NULL,
    begun_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    events        bigint      NOT NULL DEFAULT 0 CHECK (events >= 0),
    looked_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at      timestamptz,
    ended_events  bigint      CHECK (ended_events >= 0),
    PRIMARY KEY (generation_id),
    CHECK ((ended_at IS NULL) = (ended_events IS NULL))
) WITH (fillfactor = 40);
COMMENT ON TABLE projection_audits IS 'How far the workers have compared each generation with the log, round after round over all streams.';
COMMENT ON COLUMN projection_audits.generation_id IS 'The generation whose rows are compared.';
COMMENT ON COLUMN projection_audits.begun_stream IS 'Where this round began: it ends when it comes there again.';
COMMENT ON COLUMN projection_audits.next_stream IS 'The first stream that this round has not looked at yet.';
COMMENT ON COLUMN projection_audits.begun_at IS 'When this round began.';
COMMENT ON COLUMN projection_audits.events IS 'Events that this round has read.';
COMMENT ON COLUMN projection_audits.looked_at IS 'When it was last looked at.';
COMMENT ON COLUMN projection_audits.ended_at IS 'When the last whole round ended; null before the first.';
COMMENT ON COLUMN projection_audits.ended_events IS 'Events that the last whole round has read.';

CREATE TABLE audit_findings (
    generation_id integer     NOT NULL REFERENCES projection_generations,
    id            bigint      NOT NULL,
    key           text        NOT NULL,
    column_name   text        NOT NULL CHECK (column_name <> ''),
    expected      text        NOT NULL,
    found         text        NOT NULL,
    found_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    closed_at     timestamptz,
    PRIMARY KEY (generation_id, id),
    CHECK (seen_at >= found_at),
    CHECK (closed_at >= found_at)
);
CREATE INDEX audit_findings_open ON audit_findings (generation_id) WHERE closed_at IS NULL;
COMMENT ON TABLE audit_findings IS 'Rows of projected tables that were not what the log gives, each with its first column that differed.';
COMMENT ON COLUMN audit_findings.generation_id IS 'The generation whose row it is.';
COMMENT ON COLUMN audit_findings.id IS 'Surrogate key of the row: the number of its event.';
COMMENT ON COLUMN audit_findings.key IS 'Business key of the row.';
COMMENT ON COLUMN audit_findings.column_name IS 'The first column that differs, in the order of the definition.';
COMMENT ON COLUMN audit_findings.expected IS 'What the log gives, as the server writes it.';
COMMENT ON COLUMN audit_findings.found IS 'What the table had, as the server writes it.';
COMMENT ON COLUMN audit_findings.found_at IS 'When it was found first.';
COMMENT ON COLUMN audit_findings.seen_at IS 'When it was seen last.';
COMMENT ON COLUMN audit_findings.closed_at IS 'When the row was seen to be right again, or its table was replaced; null while it differs.';

GRANT SELECT ON projection_audits, audit_findings TO position_ledger_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON projection_audits, audit_findings TO position_ledger_projector;

-- verify

SELECT count(*) = 2 FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'
   AND relname IN ('projection_audits', 'audit_findings');
SELECT bool_and(has_table_privilege('position_ledger_projector', c.oid, 'SELECT, INSERT'))
  FROM pg_class AS c WHERE c.relnamespace = current_schema()::regnamespace
   AND c.relname IN ('projection_audits', 'audit_findings');
SELECT count(*) = 0 FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
 WHERE c.relnamespace = current_schema()::regnamespace AND c.relname IN ('projection_audits', 'audit_findings')
   AND a.attnum > 0 AND NOT a.attisdropped AND col_description(a.attrelid, a.attnum) IS NULL;

-- rollback

DROP TABLE audit_findings;
DROP TABLE projection_audits;
