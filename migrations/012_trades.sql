-- Migration: 012
-- Description: The trades table and its current rows
-- Date: 2026-11-22
-- Author: position-ledger maintainers
-- Related: projections/trades.py, docs/reference/domain-rules.md (Corrections)
-- Summary: Every fill, or leg of one, is a trade; a bust, correction or fee adjustment is a new version of it, never an
--   edit. What is the venue's (environment, account, venue, venue_fill_id) is unique for ever in append_keys.
-- Rollback: Drops table and view. No event is lost; the rows can be projected again.

-- forward

CREATE TABLE trades (
    id                    bigint         NOT NULL,
    trade_id              text           NOT NULL,
    row_current_ind       boolean        NOT NULL,
    row_effective_date    timestamptz    NOT NULL,
    row_expiration_date   timestamptz,
    version               integer        NOT NULL,
    effective_at          timestamptz    NOT NULL,
    execution_environment text           NOT NULL,
    position_id           text           NOT NULL,
    leg                   integer        NOT NULL,
    linked_trade_id       text,
    account_id            text           NOT NULL,
    market_id             text           NOT NULL,
    platform_id           text,
    strategy_id           bigint,
    currency              text           NOT NULL,
    side                  text           NOT NULL,
    action                text           NOT NULL,
    position_effect       text           NOT NULL,
    quantity              numeric(38,18) NOT NULL,
    price                 numeric(38,18) NOT NULL,
    amount                numeric(38,18) NOT NULL,
    fee                   numeric(38,18) NOT NULL,
    fee_currency          text           NOT NULL,
    fee_charged           numeric(38,18),
    fee_charged_currency  text,
    realized_gross        numeric(38,18) NOT NULL,
    busted_quantity       numeric(38,18) NOT NULL,
    busted_amount         numeric(38,18) NOT NULL,
    status                text           NOT NULL,
    venue                 text,
    venue_fill_id         text,
    order_id              text,
    liquidity             text,
    source                text,
    reason                text,
    actor                 text,
    execution_time        timestamptz    NOT NULL,
    trade_metadata        jsonb,
    CONSTRAINT trades_pkey PRIMARY KEY (id),
    CONSTRAINT trades_one_row_a_version UNIQUE (trade_id, version),
    CONSTRAINT trades_current_has_no_end CHECK (row_current_ind = (row_expiration_date IS NULL)),
    CONSTRAINT trades_interval_not_empty CHECK (row_expiration_date > row_effective_date),
    CONSTRAINT trades_version_counts_from_1 CHECK (version >= 1),
    CONSTRAINT trades_business_key CHECK (CASE WHEN version = 1 THEN trade_id = 'TRD-' || id
                                               ELSE trade_id ~ '^TRD-[1-9][0-9]*$' END),
    CONSTRAINT trades_environment CHECK (execution_environment IN ('live', 'paper', 'backtest')),
    CONSTRAINT trades_side CHECK (side IN ('YES', 'NO', 'LONG', 'SHORT')),
    CONSTRAINT trades_action CHECK (action IN ('buy', 'sell')),
    CONSTRAINT trades_position_effect CHECK (position_effect IN ('open', 'increase', 'reduce', 'close')),
    CONSTRAINT trades_leg CHECK (leg >= 1),
    CONSTRAINT trades_quantity CHECK (quantity > 0 AND price >= 0 AND amount >= 0),
    CONSTRAINT trades_fee_charged CHECK ((fee_charged IS NULL) = (fee_charged_currency IS NULL)),
    CONSTRAINT trades_busted CHECK (busted_quantity BETWEEN 0 AND quantity AND busted_amount BETWEEN 0 AND amount),
    CONSTRAINT trades_status CHECK (status IN ('active', 'corrected', 'busted')
                                    AND (status = 'busted') = (busted_quantity = quantity)),
    CONSTRAINT trades_correction_is_answered_for CHECK (status = 'active' OR (reason IS NOT NULL AND actor IS NOT NULL)),
    CONSTRAINT trades_first_version_is_active CHECK ((version = 1) = (status = 'active'))
);
CREATE UNIQUE INDEX trades_one_current_row ON trades (trade_id) WHERE row_current_ind;
CREATE INDEX trades_known_at ON trades (trade_id, row_effective_date);
CREATE INDEX trades_by_position ON trades (position_id) WHERE row_current_ind;
CREATE INDEX trades_by_market ON trades (market_id, execution_environment) WHERE row_current_ind AND status <> 'busted';
CREATE INDEX trades_by_venue ON trades (venue_fill_id) WHERE row_current_ind AND venue_fill_id IS NOT NULL;

COMMENT ON TABLE trades IS 'One execution as booked on one position: a fill, or a leg of one; a row for each version of it.';
COMMENT ON COLUMN trades.id IS 'Surrogate key: the number of the event that made this version; the same after every rebuild.';
COMMENT ON COLUMN trades.trade_id IS 'Business key: TRD-<id of the first version>, the number of the event that recorded the fill.';
COMMENT ON COLUMN trades.row_current_ind IS 'True on exactly one version of a trade.';
COMMENT ON COLUMN trades.row_effective_date IS 'When the ledger learned this version (recorded time); start of its interval, included.';
COMMENT ON COLUMN trades.row_expiration_date IS 'Start of the next version; null while current. The end is not included.';
COMMENT ON COLUMN trades.version IS '1, 2, 3 … in each trade: a bust, correction or fee adjustment is a new one.';
COMMENT ON COLUMN trades.effective_at IS 'Effective time of the event of this version; a correction has that of the trade it corrects.';
COMMENT ON COLUMN trades.execution_environment IS 'live, paper or backtest; never mixed in a sum.';
COMMENT ON COLUMN trades.position_id IS 'The position that the fill, or this leg of it, was booked on.';
COMMENT ON COLUMN trades.leg IS '1-based place in the execution; more than one when it was split or flipped.';
COMMENT ON COLUMN trades.linked_trade_id IS 'The next leg of the same execution; all legs form a ring. Null: a single leg.';
COMMENT ON COLUMN trades.account_id IS 'The account that traded.';
COMMENT ON COLUMN trades.market_id IS 'The market of the contract.';
COMMENT ON COLUMN trades.platform_id IS 'The platform where it was executed.';
COMMENT ON COLUMN trades.strategy_id IS 'The strategy of the position, if any.';
COMMENT ON COLUMN trades.currency IS 'Currency of amount and gain.';
COMMENT ON COLUMN trades.side IS 'YES or NO (binary), LONG or SHORT: the contract that price and quantity speak of.';
COMMENT ON COLUMN trades.action IS 'What the venue executed: buy or sell. SHORT is sold to open and bought to cover.';
COMMENT ON COLUMN trades.position_effect IS 'open, increase, reduce or close, when it was recorded.';
COMMENT ON COLUMN trades.quantity IS 'Contracts executed, those busted since included.';
COMMENT ON COLUMN trades.price IS 'Own-side price of one contract.';
COMMENT ON COLUMN trades.amount IS 'Of all of quantity: round18(quantity * multiplier * price), or this leg''s part of it.';
COMMENT ON COLUMN trades.fee IS 'What is charged for it now; below zero: a rebate.';
COMMENT ON COLUMN trades.fee_currency IS 'Currency of fee: that of the position.';
COMMENT ON COLUMN trades.fee_charged IS 'What the venue charged, where it charged in another currency; null: as fee.';
COMMENT ON COLUMN trades.fee_charged_currency IS 'The currency that the venue charged in, where it is another.';
COMMENT ON COLUMN trades.realized_gross IS 'What it alone realized before fees, when this version was recorded.';
COMMENT ON COLUMN trades.busted_quantity IS 'Contracts that the venue cancelled; they never counted.';
COMMENT ON COLUMN trades.busted_amount IS 'Part of amount that is no longer owed.';
COMMENT ON COLUMN trades.status IS 'active, corrected (in part busted, or otherwise than first recorded) or busted (nothing of it is left).';
COMMENT ON COLUMN trades.venue IS 'Where it was executed.';
COMMENT ON COLUMN trades.venue_fill_id IS 'The venue''s id of the execution.';
COMMENT ON COLUMN trades.order_id IS 'The venue''s id of the order.';
COMMENT ON COLUMN trades.liquidity IS 'maker or taker.';
COMMENT ON COLUMN trades.source IS 'Who recorded it.';
COMMENT ON COLUMN trades.reason IS 'Why it was last busted, corrected or adjusted.';
COMMENT ON COLUMN trades.actor IS 'Who answers for that.';
COMMENT ON COLUMN trades.execution_time IS 'When it was executed, as corrected.';
COMMENT ON COLUMN trades.trade_metadata IS 'What the caller attached.';

CREATE TRIGGER history_is_kept BEFORE DELETE ON trades FOR EACH ROW EXECUTE FUNCTION refuse_history_change();
CREATE TRIGGER history_is_kept_truncate BEFORE TRUNCATE ON trades FOR EACH STATEMENT
    EXECUTE FUNCTION refuse_history_change();
CREATE TRIGGER history_is_kept_update BEFORE UPDATE ON trades FOR EACH ROW
    WHEN (NOT OLD.row_current_ind OR NEW.row_current_ind OR OLD.id <> NEW.id OR OLD.trade_id <> NEW.trade_id
          OR OLD.row_effective_date <> NEW.row_effective_date OR OLD.version <> NEW.version)
    EXECUTE FUNCTION refuse_history_change();

GRANT SELECT ON trades TO position_ledger_reader, position_ledger_projector;
GRANT INSERT ON trades TO position_ledger_projector;
GRANT UPDATE (row_current_ind, row_expiration_date) ON trades TO position_ledger_projector;

CREATE VIEW current_trades AS
SELECT t.id, t.trade_id, t.row_effective_date, t.version, t.effective_at, t.execution_environment, t.position_id,
       t.leg, t.linked_trade_id, t.account_id, t.market_id, t.platform_id, t.strategy_id, t.currency, t.side,
       t.action, t.position_effect, t.quantity, t.price, t.amount, t.fee, t.fee_currency, t.fee_charged,
       t.fee_charged_currency, t.realized_gross, t.busted_quantity, t.busted_amount, t.status, t.venue, t.venue_fill_id, t.order_id, t.liquidity, t.source,
       t.reason, t.actor, t.execution_time, t.trade_metadata
  FROM trades AS t WHERE t.row_current_ind;
COMMENT ON VIEW current_trades IS 'The current version of every trade, busted ones included.';

GRANT SELECT ON current_trades TO position_ledger_reader, position_ledger_projector;

-- verify

SELECT count(*) = 39 FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = 'trades';
SELECT indisunique AND indisvalid AND pg_get_expr(indpred, indrelid) = 'row_current_ind' FROM pg_index
 WHERE indexrelid = to_regclass(current_schema() || '.trades_one_current_row');
SELECT count(*) = 0 FROM pg_attribute WHERE attrelid = to_regclass(current_schema() || '.trades') AND attnum > 0
   AND NOT attisdropped AND col_description(attrelid, attnum) IS NULL;
SELECT count(*) = 1 FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'v'
   AND relname = 'current_trades';

-- rollback

DROP VIEW current_trades;
DROP TABLE trades;
