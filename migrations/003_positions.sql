-- Migration: 003
-- Description: The positions table and its views
-- Date: 2026-11-22
-- Author: position-ledger maintainers
-- Related: projections/positions.py
-- Summary: Dual-key SCD Type 2: id is the number of the event that made the version, position_id stays the same on all
--   versions. The database refuses two current rows, empty or reversed intervals, and changes to history.
-- Rollback: Drops table and views. No event is lost; the rows can be projected again.

-- forward

CREATE TABLE positions (
    id                    bigint         NOT NULL,
    position_id           text           NOT NULL,
    row_current_ind       boolean        NOT NULL,
    row_effective_date    timestamptz    NOT NULL,
    row_expiration_date   timestamptz,
    version               integer        NOT NULL,
    effective_at          timestamptz    NOT NULL,
    execution_environment text           NOT NULL,
    account_id            text           NOT NULL,
    market_id             text           NOT NULL,
    platform_id           text,
    strategy_id           bigint,
    model_id              bigint,
    edge_id               bigint,
    currency              text           NOT NULL,
    side                  text           NOT NULL,
    status                text           NOT NULL,
    quantity              numeric(38,18) NOT NULL,
    entry_quantity        numeric(38,18) NOT NULL,
    exit_quantity         numeric(38,18) NOT NULL,
    peak_quantity         numeric(38,18) NOT NULL,
    entry_price           numeric(38,18) NOT NULL,
    average_entry_price   numeric(38,18),
    current_price         numeric(38,18) NOT NULL,
    mark_time             timestamptz,
    mark_source           text,
    exit_price            numeric(38,18),
    settlement_value      numeric(38,18),
    target_price          numeric(38,18),
    stop_loss_price       numeric(38,18),
    trailing_stop_state   jsonb,
    exits_triggered       jsonb,
    cost                  numeric(38,18) NOT NULL,
    realized_gross        numeric(38,18) NOT NULL,
    open_fees             numeric(38,18) NOT NULL,
    close_fees            numeric(38,18) NOT NULL,
    open_fees_released    numeric(38,18) NOT NULL,
    realized_pnl          numeric(38,18) NOT NULL,
    realized_pnl_closed   numeric(38,18) NOT NULL,
    unrealized_pnl        numeric(38,18),
    unrealized_pnl_pct    numeric(38,18),
    shortfall_quantity    numeric(38,18) NOT NULL,
    is_dust               boolean        NOT NULL,
    exit_reason           text,
    entry_time            timestamptz    NOT NULL,
    exit_time             timestamptz,
    previous_position_id  text,
    position_metadata     jsonb,
    CONSTRAINT positions_pkey PRIMARY KEY (id),
    CONSTRAINT positions_one_row_a_version UNIQUE (position_id, version),
    CONSTRAINT positions_current_has_no_end CHECK (row_current_ind = (row_expiration_date IS NULL)),
    CONSTRAINT positions_interval_not_empty CHECK (row_expiration_date > row_effective_date),
    CONSTRAINT positions_version_counts_from_1 CHECK (version >= 1),
    CONSTRAINT positions_business_key CHECK (CASE WHEN version = 1 THEN position_id = 'POS-' || id
                                                  ELSE position_id ~ '^POS-[1-9][0-9]*$' END),
    CONSTRAINT positions_environment CHECK (execution_environment IN ('live', 'paper', 'backtest')),
    CONSTRAINT positions_side CHECK (side IN ('YES', 'NO', 'LONG', 'SHORT')),
    CONSTRAINT positions_status CHECK (status IN ('open', 'closed', 'settled', 'voided', 'transferred')),
    CONSTRAINT positions_quantity CHECK (quantity >= 0 AND peak_quantity >= quantity AND shortfall_quantity >= 0),
    CONSTRAINT positions_flat_unless_open CHECK (status = 'open' OR quantity = 0),
    CONSTRAINT positions_flat_costs_nothing CHECK (quantity <> 0 OR (cost = 0 AND unrealized_pnl IS NULL)),
    CONSTRAINT positions_net_of_fees CHECK (realized_pnl = realized_gross - open_fees - close_fees)
);
CREATE UNIQUE INDEX positions_one_current_row ON positions (position_id) WHERE row_current_ind;
CREATE INDEX positions_open_by_market ON positions (market_id, execution_environment)
    WHERE row_current_ind AND status = 'open';

COMMENT ON TABLE positions IS 'One cycle from opening to flat of one account in one market on one side; a row for each version of it.';
COMMENT ON COLUMN positions.id IS 'Surrogate key: the number of the event that made this version; the same after every rebuild.';
COMMENT ON COLUMN positions.position_id IS 'Business key: POS-<id of the first version>.';
COMMENT ON COLUMN positions.row_current_ind IS 'True on exactly one version of a position.';
COMMENT ON COLUMN positions.row_effective_date IS 'When the ledger learned this version (recorded time); start of its interval, included.';
COMMENT ON COLUMN positions.row_expiration_date IS 'Start of the next version; null while current. The end is not included.';
COMMENT ON COLUMN positions.version IS '1, 2, 3 … in each position.';
COMMENT ON COLUMN positions.effective_at IS 'When the event of this version happened at the venue.';
COMMENT ON COLUMN positions.execution_environment IS 'live, paper or backtest; never mixed in a sum.';
COMMENT ON COLUMN positions.account_id IS 'The account that holds the position.';
COMMENT ON COLUMN positions.market_id IS 'The market of the contract.';
COMMENT ON COLUMN positions.platform_id IS 'The platform where it is held.';
COMMENT ON COLUMN positions.strategy_id IS 'The strategy that opened it, if any.';
COMMENT ON COLUMN positions.model_id IS 'The probability model behind it, if any.';
COMMENT ON COLUMN positions.edge_id IS 'The edge it acts on, if any.';
COMMENT ON COLUMN positions.currency IS 'Currency of every amount of the row.';
COMMENT ON COLUMN positions.side IS 'YES or NO (binary), LONG or SHORT; prices are those of the contract held.';
COMMENT ON COLUMN positions.status IS 'open, closed, settled, voided or transferred.';
COMMENT ON COLUMN positions.quantity IS 'Open now, in contracts.';
COMMENT ON COLUMN positions.entry_quantity IS 'Sum of all entries of the cycle.';
COMMENT ON COLUMN positions.exit_quantity IS 'Sum of all exits of the cycle.';
COMMENT ON COLUMN positions.peak_quantity IS 'Largest open quantity of the cycle.';
COMMENT ON COLUMN positions.entry_price IS 'Mean price of all entries of the cycle; kept after the close.';
COMMENT ON COLUMN positions.average_entry_price IS 'cost / quantity while open; null when flat.';
COMMENT ON COLUMN positions.current_price IS 'Last mark; the entry price at the opening, the exit price after the close.';
COMMENT ON COLUMN positions.mark_time IS 'Effective time of the last mark.';
COMMENT ON COLUMN positions.mark_source IS 'Where the last mark came from.';
COMMENT ON COLUMN positions.exit_price IS 'Mean price of all exits, the payout of a settlement included.';
COMMENT ON COLUMN positions.settlement_value IS 'What the market settled at, per contract held.';
COMMENT ON COLUMN positions.target_price IS 'Exit target, own-side price.';
COMMENT ON COLUMN positions.stop_loss_price IS 'Stop, own-side price.';
COMMENT ON COLUMN positions.trailing_stop_state IS 'Trailing stop: settings, watermark and stop.';
COMMENT ON COLUMN positions.exits_triggered IS 'Exits that marks have touched since they were armed, in order.';
COMMENT ON COLUMN positions.cost IS 'Exact cost of what is open.';
COMMENT ON COLUMN positions.realized_gross IS 'Realized before fees.';
COMMENT ON COLUMN positions.open_fees IS 'Fees charged on entries so far.';
COMMENT ON COLUMN positions.close_fees IS 'Fees charged on exits so far.';
COMMENT ON COLUMN positions.open_fees_released IS 'Share of open_fees that belongs to what was closed.';
COMMENT ON COLUMN positions.realized_pnl IS 'Net: realized_gross - open_fees - close_fees; fees count at once.';
COMMENT ON COLUMN positions.realized_pnl_closed IS 'realized_gross - close_fees - open_fees_released.';
COMMENT ON COLUMN positions.unrealized_pnl IS 'sign * (quantity * current_price - cost); null when flat.';
COMMENT ON COLUMN positions.unrealized_pnl_pct IS 'unrealized_pnl / cost as a fraction; null at cost 0.';
COMMENT ON COLUMN positions.shortfall_quantity IS 'Sold or settled beyond what was held, after a correction.';
COMMENT ON COLUMN positions.is_dust IS 'What is open is no more than the dust that its import tolerates.';
COMMENT ON COLUMN positions.exit_reason IS 'Why it was closed.';
COMMENT ON COLUMN positions.entry_time IS 'Effective time of the first entry.';
COMMENT ON COLUMN positions.exit_time IS 'Effective time of the last exit, once flat.';
COMMENT ON COLUMN positions.previous_position_id IS 'The position that this one continues, after a flip.';
COMMENT ON COLUMN positions.position_metadata IS 'What the caller attached.';

CREATE FUNCTION refuse_history_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on %.% is refused: history rows never change, except that the current one expires once',
        TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER history_is_kept BEFORE DELETE ON positions FOR EACH ROW EXECUTE FUNCTION refuse_history_change();
CREATE TRIGGER history_is_kept_truncate BEFORE TRUNCATE ON positions FOR EACH STATEMENT
    EXECUTE FUNCTION refuse_history_change();
CREATE TRIGGER history_is_kept_update BEFORE UPDATE ON positions FOR EACH ROW
    WHEN (NOT OLD.row_current_ind OR NEW.row_current_ind OR OLD.id <> NEW.id OR OLD.position_id <> NEW.position_id
          OR OLD.row_effective_date <> NEW.row_effective_date OR OLD.version <> NEW.version)
    EXECUTE FUNCTION refuse_history_change();

GRANT SELECT ON positions TO position_ledger_reader, position_ledger_projector;
GRANT INSERT ON positions TO position_ledger_projector;
GRANT UPDATE (row_current_ind, row_expiration_date) ON positions TO position_ledger_projector;

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

CREATE VIEW open_positions AS
SELECT p.id, p.position_id, p.row_effective_date, p.version, p.effective_at, p.execution_environment, p.account_id,
       p.market_id, p.platform_id, p.strategy_id, p.model_id, p.edge_id, p.currency, p.side, p.quantity,
       p.entry_price, p.average_entry_price, p.current_price, p.mark_time, p.target_price, p.stop_loss_price,
       p.trailing_stop_state, p.exits_triggered, p.cost, p.realized_pnl, p.unrealized_pnl, p.unrealized_pnl_pct, p.entry_time,
       p.position_metadata
  FROM positions AS p WHERE p.row_current_ind AND p.status = 'open';
COMMENT ON VIEW open_positions IS 'What is held now.';

GRANT SELECT ON current_positions, open_positions TO position_ledger_reader, position_ledger_projector;

-- verify

SELECT count(*) = 48 FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = 'positions';
SELECT indisunique AND indisvalid AND pg_get_expr(indpred, indrelid) = 'row_current_ind' FROM pg_index
 WHERE indexrelid = to_regclass(current_schema() || '.positions_one_current_row');
SELECT count(*) = 0 FROM pg_attribute WHERE attrelid = to_regclass(current_schema() || '.positions') AND attnum > 0
   AND NOT attisdropped AND col_description(attrelid, attnum) IS NULL;
SELECT count(*) = 2 FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'v'
   AND relname IN ('current_positions', 'open_positions');

-- rollback

DROP VIEW open_positions;
DROP VIEW current_positions;
DROP TABLE positions;
DROP FUNCTION refuse_history_change();
