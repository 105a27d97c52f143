-- Migration: 011
-- Description: positions tell of restatements, and of what their contracts are
-- Date: 2026-11-22
-- Author: position-ledger maintainers
-- Related: projections/positions.py, docs/reference/domain-rules.md (Corrections)
-- Summary: Columns without a default: their values for every old row are in the event history and nowhere else, so with
--   history this is a rebuild. The index finds the version of a key that was known at a time.
-- Rollback: The columns and the index go; the events stay.

-- forward

ALTER TABLE positions
    ADD COLUMN multiplier           numeric(38,18) NOT NULL,
    ADD COLUMN margin_rate          numeric(38,18) NOT NULL,
    ADD COLUMN transferred_quantity numeric(38,18) NOT NULL,
    ADD COLUMN shortfall_amount     numeric(38,18) NOT NULL,
    ADD COLUMN settlement_revision  bigint,
    ADD COLUMN restatements         integer        NOT NULL,
    ADD COLUMN restated_realized    numeric(38,18) NOT NULL,
    ADD CONSTRAINT positions_contract CHECK (multiplier > 0 AND margin_rate >= 0),
    ADD CONSTRAINT positions_shortfall CHECK (shortfall_amount >= 0 AND (shortfall_quantity > 0 OR shortfall_amount = 0)),
    ADD CONSTRAINT positions_restatements CHECK (restatements >= 0 AND (restatements > 0 OR restated_realized = 0));
CREATE INDEX positions_known_at ON positions (position_id, row_effective_date);
CREATE INDEX positions_paid_by_market ON positions (market_id, execution_environment, settlement_revision)
    WHERE row_current_ind AND settlement_revision IS NOT NULL;

COMMENT ON COLUMN positions.multiplier IS 'Units of the price''s currency that one contract moves when its price moves by 1.';
COMMENT ON COLUMN positions.margin_rate IS 'Share of the entry amount that a SHORT locks beside its proceeds.';
COMMENT ON COLUMN positions.transferred_quantity IS 'What came from other accounts less what went there, after the opening.';
COMMENT ON COLUMN positions.shortfall_amount IS 'What shortfall_quantity brought; in no gain.';
COMMENT ON COLUMN positions.settlement_revision IS 'Revision of the market''s last verdict that the position was told; null: none, or settled by hand.';
COMMENT ON COLUMN positions.restatements IS 'Late fills, busts, corrections, fee adjustments and amendments so far.';
COMMENT ON COLUMN positions.restated_realized IS 'Sum of what they changed realized_pnl by.';

CREATE OR REPLACE VIEW current_positions AS
SELECT p.id, p.position_id, p.row_effective_date, p.version, p.effective_at, p.execution_environment, p.account_id,
       p.market_id, p.platform_id, p.strategy_id, p.model_id, p.edge_id, p.currency, p.side, p.status, p.quantity,
       p.entry_quantity, p.exit_quantity, p.peak_quantity, p.entry_price, p.average_entry_price, p.current_price,
       p.mark_time, p.mark_source, p.exit_price, p.settlement_value, p.target_price, p.stop_loss_price,
       p.trailing_stop_state, p.exits_triggered, p.cost, p.realized_gross, p.open_fees, p.close_fees, p.open_fees_released,
       p.realized_pnl, p.realized_pnl_closed, p.unrealized_pnl, p.unrealized_pnl_pct, p.shortfall_quantity,
       p.is_dust, p.exit_reason, p.entry_time, p.exit_time, p.previous_position_id, p.position_metadata, p.multiplier, p.margin_rate,
       p.transferred_quantity, p.shortfall_amount, p.settlement_revision, p.restatements, p.restated_realized
  FROM positions AS p WHERE p.row_current_ind;

-- verify

SELECT count(*) = 55 FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = 'positions';
SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(current_schema() || '.positions_known_at');
SELECT count(*) = 0 FROM pg_attribute WHERE attrelid = to_regclass(current_schema() || '.positions') AND attnum > 0
   AND NOT attisdropped AND col_description(attrelid, attnum) IS NULL;
SELECT count(*) = 1 FROM information_schema.columns WHERE table_schema = current_schema()
   AND table_name = 'current_positions' AND column_name = 'restatements';

-- rollback

DROP VIEW current_positions;
DROP INDEX positions_paid_by_market;
DROP INDEX positions_known_at;
ALTER TABLE positions
    DROP CONSTRAINT positions_restatements,
    DROP CONSTRAINT positions_shortfall,
    DROP CONSTRAINT positions_contract,
    DROP COLUMN restated_realized,
    DROP COLUMN restatements,
    DROP COLUMN settlement_revision,
    DROP COLUMN shortfall_amount,
    DROP COLUMN transferred_quantity,
    DROP COLUMN margin_rate,
    DROP COLUMN multiplier;
CREATE VIEW current_positions AS
SELECT p.id, p.position_id, p.row_effective_date, p.version, p.effective_at, p.execution_environment, p.account_id,
       p.market_id, p.platform_id, p.strategy_id, p.model_id, p.edge_id, p.currency, p.side, p.status, p.quantity,
       p.entry_quantity, p.exit_quantity, p.peak_quantity, p.entry_price, p.average_entry_price, p.current_price,
       p.mark_time, p.mark_source, p.exit_price, p.settlement_value, p.target_price, p.stop_loss_price,
       p.trailing_stop_state, p.exits_triggered, p.cost, p.realized_gross, p.open_fees, p.close_fees, p.open_fees_released,
       p.realized_pnl, p.realized_pnl_closed, p.unrealized_pnl, p.unrealized_pnl_pct, p.shortfall_quantity,
       p.is_dust, p.exit_reason, p.entry_time, p.exit_time, p.previous_position_id, p.position_metadata
  FROM positions AS p WHERE p.row_current_ind;
COMMENT ON VIEW current_positions IS 'The current version of every position.';
GRANT SELECT ON current_positions TO position_ledger_reader, position_ledger_projector;
