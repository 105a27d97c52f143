-- Migration: 007
-- Description: The edges table and its view
-- Date: 2026-11-22
-- Author: position-ledger maintainers
-- Related: projections/edges.py
-- Summary: Dual-key SCD Type 2 as positions: id is the number of the event that made the version, edge_id stays the
--   same on all versions. The database refuses two current rows, empty or reversed intervals, and changes to history.
-- Rollback: Drops table and view. No event is lost; the rows can be projected again.

-- forward

CREATE TABLE edges (
    id                         bigint         NOT NULL,
    edge_id                    text           NOT NULL,
    row_current_ind            boolean        NOT NULL,
    row_effective_date         timestamptz    NOT NULL,
    row_expiration_date        timestamptz,
    version                    integer        NOT NULL,
    effective_at               timestamptz    NOT NULL,
    execution_environment      text           NOT NULL,
    edge_name                  text,
    market_id                  text           NOT NULL,
    strategy_id                bigint,
    model_id                   bigint,
    side                       text,
    true_win_probability       numeric(38,18) NOT NULL,
    market_implied_probability numeric(38,18),
    market_price               numeric(38,18),
    expected_value             numeric(38,18),
    confidence_level           text,
    recommended_action         text,
    edge_status                text           NOT NULL,
    status_reason              text,
    actual_outcome             numeric(38,18),
    resolved_at                timestamptz,
    edge_metadata              jsonb,
    CONSTRAINT edges_pkey PRIMARY KEY (id),
    CONSTRAINT edges_one_row_a_version UNIQUE (edge_id, version),
    CONSTRAINT edges_current_has_no_end CHECK (row_current_ind = (row_expiration_date IS NULL)),
    CONSTRAINT edges_interval_not_empty CHECK (row_expiration_date > row_effective_date),
    CONSTRAINT edges_version_counts_from_1 CHECK (version >= 1),
    CONSTRAINT edges_business_key CHECK (CASE WHEN version = 1 THEN edge_id = 'EDGE-' || id
        ELSE edge_id ~ '^EDGE-[1-9][0-9]*$' END),
    CONSTRAINT edges_environment CHECK (execution_environment IN ('live', 'paper', 'backtest')),
    CONSTRAINT edges_side CHECK (side IN ('YES', 'NO', 'LONG', 'SHORT')),
    CONSTRAINT edges_status CHECK (edge_status IN ('detected', 'recommended', 'acted_on', 'expired', 'settled', 'void')),
    CONSTRAINT edges_probabilities CHECK (true_win_probability BETWEEN 0 AND 1
                                          AND market_implied_probability BETWEEN 0 AND 1 AND actual_outcome BETWEEN 0 AND 1),
    CONSTRAINT edges_price CHECK (market_price >= 0),
    CONSTRAINT edges_outcome_when_settled CHECK ((actual_outcome IS NOT NULL) = (edge_status = 'settled')),
    CONSTRAINT edges_resolved_at_the_end CHECK ((resolved_at IS NOT NULL) = (edge_status IN ('expired', 'settled', 'void')))
);
CREATE UNIQUE INDEX edges_one_current_row ON edges (edge_id) WHERE row_current_ind;
CREATE INDEX edges_known_at ON edges (edge_id, row_effective_date);
CREATE INDEX edges_live_by_market ON edges (market_id, execution_environment)
    WHERE row_current_ind AND edge_status IN ('detected', 'recommended', 'acted_on');

COMMENT ON TABLE edges IS 'What a model believes a contract is worth against what the market asks; a row for each version of it.';
COMMENT ON COLUMN edges.id IS 'Surrogate key: the number of the event that made this version; the same after every rebuild.';
COMMENT ON COLUMN edges.edge_id IS 'Business key: EDGE-<id of the first version>.';
COMMENT ON COLUMN edges.row_current_ind IS 'True on exactly one version of an edge.';
COMMENT ON COLUMN edges.row_effective_date IS 'When the ledger learned this version (recorded time); start of its interval, included.';
COMMENT ON COLUMN edges.row_expiration_date IS 'Start of the next version; null while current. The end is not included.';
COMMENT ON COLUMN edges.version IS '1, 2, 3 … in each edge.';
COMMENT ON COLUMN edges.effective_at IS 'When the event of this version happened.';
COMMENT ON COLUMN edges.execution_environment IS 'live, paper or backtest; never mixed in a sum.';
COMMENT ON COLUMN edges.edge_name IS 'The name that its strategy or feed gave it, unique in its environment; null: it has none.';
COMMENT ON COLUMN edges.market_id IS 'The market of the contract.';
COMMENT ON COLUMN edges.strategy_id IS 'The strategy that looks for it, if any.';
COMMENT ON COLUMN edges.model_id IS 'The probability model behind it, if any.';
COMMENT ON COLUMN edges.side IS 'The contract that the numbers speak of; null: one that pays 1 if it wins.';
COMMENT ON COLUMN edges.true_win_probability IS 'What the model believes, in [0, 1].';
COMMENT ON COLUMN edges.market_implied_probability IS 'What the market believes, in [0, 1]; null: not known.';
COMMENT ON COLUMN edges.market_price IS 'What one contract cost; null: there was no offer.';
COMMENT ON COLUMN edges.expected_value IS 'Of one contract before fees: as stated, else true_win_probability - market_price; null: not known.';
COMMENT ON COLUMN edges.confidence_level IS 'In the words of the model.';
COMMENT ON COLUMN edges.recommended_action IS 'In the words of the strategy.';
COMMENT ON COLUMN edges.edge_status IS 'detected, recommended, acted_on, expired, settled or void.';
COMMENT ON COLUMN edges.status_reason IS 'Why the status changed last, where that was told.';
COMMENT ON COLUMN edges.actual_outcome IS 'What the contract paid, once settled: 1 it won, 0 it lost.';
COMMENT ON COLUMN edges.resolved_at IS 'Effective time at which it expired, settled or became void.';
COMMENT ON COLUMN edges.edge_metadata IS 'What the caller attached.';

CREATE TRIGGER history_is_kept BEFORE DELETE ON edges FOR EACH ROW EXECUTE FUNCTION refuse_history_change();
CREATE TRIGGER history_is_kept_truncate BEFORE TRUNCATE ON edges FOR EACH STATEMENT
    EXECUTE FUNCTION refuse_history_change();
CREATE TRIGGER history_is_kept_update BEFORE UPDATE ON edges FOR EACH ROW
    WHEN (NOT OLD.row_current_ind OR NEW.row_current_ind OR OLD.id <> NEW.id OR OLD.edge_id <> NEW.edge_id
          OR OLD.row_effective_date <> NEW.row_effective_date OR OLD.version <> NEW.version)
    EXECUTE FUNCTION refuse_history_change();

GRANT SELECT ON edges TO position_ledger_reader, position_ledger_projector;
GRANT INSERT ON edges TO position_ledger_projector;
GRANT UPDATE (row_current_ind, row_expiration_date) ON edges TO position_ledger_projector;

CREATE VIEW current_edges AS
SELECT e.id, e.edge_id, e.row_effective_date, e.version, e.effective_at, e.execution_environment, e.edge_name,
       e.market_id, e.strategy_id, e.model_id, e.side, e.true_win_probability, e.market_implied_probability,
       e.market_price, e.expected_value, e.confidence_level, e.recommended_action, e.edge_status, e.status_reason,
       e.actual_outcome, e.resolved_at, e.edge_metadata
  FROM edges AS e WHERE e.row_current_ind;
COMMENT ON VIEW current_edges IS 'The current version of every edge.';

GRANT SELECT ON current_edges TO position_ledger_reader, position_ledger_projector;

-- verify

SELECT count(*) = 24 FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = 'edges';
SELECT indisunique AND indisvalid AND pg_get_expr(indpred, indrelid) = 'row_current_ind' FROM pg_index
 WHERE indexrelid = to_regclass(current_schema() || '.edges_one_current_row');
SELECT count(*) = 0 FROM pg_attribute WHERE attrelid = to_regclass(current_schema() || '.edges') AND attnum > 0
   AND NOT attisdropped AND col_description(attrelid, attnum) IS NULL;
SELECT count(*) = 3 FROM pg_trigger WHERE tgrelid = to_regclass(current_schema() || '.edges') AND NOT tgisinternal;
SELECT to_regclass(current_schema() || '.current_edges') IS NOT NULL;

-- rollback

DROP VIEW current_edges;
DROP TABLE edges;
