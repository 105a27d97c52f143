-- Migration: 006
-- Description: The markets table and its view
-- Date: 2026-11-22
-- Author: position-ledger maintainers
-- Related: projections/markets.py
-- Summary: Dual-key SCD Type 2, as positions: id is the number of the event that made the version, market_id stays the same
--   on all versions. ticker is what positions call their market; it is unique among the markets of an environment.
-- Rollback: Drops table and view. No event is lost; the rows can be projected again.

-- forward

CREATE TABLE markets (
    id                    bigint         NOT NULL,
    market_id             text           NOT NULL,
    row_current_ind       boolean        NOT NULL,
    row_effective_date    timestamptz    NOT NULL,
    row_expiration_date   timestamptz,
    version               integer        NOT NULL,
    effective_at          timestamptz    NOT NULL,
    execution_environment text           NOT NULL,
    platform_id           text,
    market_event_id       text,
    ticker                text           NOT NULL,
    title                 text,
    kind                  text           NOT NULL,
    currency              text           NOT NULL,
    base_asset            text,
    multiplier            numeric(38,18) NOT NULL,
    tick_size             numeric(38,18),
    price_min             numeric(38,18),
    price_max             numeric(38,18),
    margin_rate           numeric(38,18) NOT NULL,
    netting               text           NOT NULL,
    status                text           NOT NULL,
    yes_price             numeric(38,18),
    no_price              numeric(38,18),
    yes_bid               numeric(38,18),
    yes_ask               numeric(38,18),
    no_bid                numeric(38,18),
    no_ask                numeric(38,18),
    last_price            numeric(38,18),
    settlement_value      numeric(38,18),
    close_time            timestamptz,
    settled_at            timestamptz,
    quote_time            timestamptz,
    outcome_value         numeric(38,18),
    dispute_reason        text,
    settlement_fee        numeric(38,18),
    settlement_revision   integer        NOT NULL,
    is_fee_refunded       boolean        NOT NULL,
    is_unwound            boolean        NOT NULL,
    market_metadata       jsonb,
    CONSTRAINT markets_pkey PRIMARY KEY (id),
    CONSTRAINT markets_one_row_a_version UNIQUE (market_id, version),
    CONSTRAINT markets_current_has_no_end CHECK (row_current_ind = (row_expiration_date IS NULL)),
    CONSTRAINT markets_interval_not_empty CHECK (row_expiration_date > row_effective_date),
    CONSTRAINT markets_version_counts_from_1 CHECK (version >= 1),
    CONSTRAINT markets_business_key CHECK (CASE WHEN version = 1 THEN market_id = 'MKT-' || id
                                                ELSE market_id ~ '^MKT-[1-9][0-9]*$' END),
    CONSTRAINT markets_environment CHECK (execution_environment IN ('live', 'paper', 'backtest')),
    CONSTRAINT markets_kind CHECK (kind IN ('binary', 'spot', 'equity', 'future', 'perpetual', 'option', 'other')),
    CONSTRAINT markets_netting CHECK (netting IN ('side', 'market')),
    CONSTRAINT markets_status CHECK (status IN ('initialized', 'open', 'halted', 'closed', 'determined', 'disputed',
                                                'amended', 'settled', 'voided')),
    CONSTRAINT markets_terms CHECK (multiplier > 0 AND margin_rate >= 0 AND tick_size > 0 AND price_min <= price_max),
    CONSTRAINT markets_only_binary_has_no CHECK (kind = 'binary' OR (no_price IS NULL AND no_bid IS NULL
                                                                     AND no_ask IS NULL)),
    CONSTRAINT markets_settled_at_a_value CHECK ((settlement_value IS NOT NULL) = (status = 'settled')),
    CONSTRAINT markets_paid_under_a_revision CHECK ((settlement_revision > 0) = (status IN ('settled', 'voided'))
                                                    AND settlement_revision >= 0)
);
CREATE UNIQUE INDEX markets_one_current_row ON markets (market_id) WHERE row_current_ind;
CREATE UNIQUE INDEX markets_one_market_a_ticker ON markets (ticker, execution_environment) WHERE row_current_ind;
CREATE INDEX markets_known_at ON markets (market_id, row_effective_date);
CREATE INDEX markets_paid ON markets (ticker, execution_environment, settlement_revision)
    WHERE row_current_ind AND settlement_revision > 0;

COMMENT ON TABLE markets IS 'What can be traded, on which terms, at which quotes, and what became of it; a row for each version of it.';
COMMENT ON COLUMN markets.id IS 'Surrogate key: the number of the event that made this version; the same after every rebuild.';
COMMENT ON COLUMN markets.market_id IS 'Business key: MKT-<id of the first version>.';
COMMENT ON COLUMN markets.row_current_ind IS 'True on exactly one version of a market.';
COMMENT ON COLUMN markets.row_effective_date IS 'When the ledger learned this version (recorded time); start of its interval, included.';
COMMENT ON COLUMN markets.row_expiration_date IS 'Start of the next version; null while current. The end is not included.';
COMMENT ON COLUMN markets.version IS '1, 2, 3 … in each market.';
COMMENT ON COLUMN markets.effective_at IS 'When the event of this version happened at the venue.';
COMMENT ON COLUMN markets.execution_environment IS 'live, paper or backtest; each has markets of its own.';
COMMENT ON COLUMN markets.platform_id IS 'The platform where it is traded.';
COMMENT ON COLUMN markets.market_event_id IS 'The event that the market is about.';
COMMENT ON COLUMN markets.ticker IS 'What the venue calls it: market_id of positions, trades and edges.';
COMMENT ON COLUMN markets.title IS 'What it asks or is, in words.';
COMMENT ON COLUMN markets.kind IS 'binary, spot, equity, future, perpetual, option or other; decides the sides.';
COMMENT ON COLUMN markets.currency IS 'Currency of its prices.';
COMMENT ON COLUMN markets.base_asset IS 'What one contract is of, where it is an asset.';
COMMENT ON COLUMN markets.multiplier IS 'Units of the currency that one contract moves when its price moves by 1.';
COMMENT ON COLUMN markets.tick_size IS 'Entry prices of OpenPosition are multiples of it.';
COMMENT ON COLUMN markets.price_min IS 'Lowest entry price of OpenPosition; null: 0.01 if binary, else 0.';
COMMENT ON COLUMN markets.price_max IS 'Highest entry price of OpenPosition; null: 0.99 if binary, else none.';
COMMENT ON COLUMN markets.margin_rate IS 'Share of the entry amount that a SHORT locks beside its proceeds.';
COMMENT ON COLUMN markets.netting IS 'side: YES and NO are held side by side; market: a buy of the other side closes first.';
COMMENT ON COLUMN markets.status IS 'initialized, open, halted, closed, determined, disputed, amended, settled or voided.';
COMMENT ON COLUMN markets.yes_price IS 'Price of YES as quoted; of the contract itself where there is no YES.';
COMMENT ON COLUMN markets.no_price IS 'Price of NO as quoted, never derived from that of YES.';
COMMENT ON COLUMN markets.yes_bid IS 'Best bid for YES.';
COMMENT ON COLUMN markets.yes_ask IS 'Best offer of YES.';
COMMENT ON COLUMN markets.no_bid IS 'Best bid for NO.';
COMMENT ON COLUMN markets.no_ask IS 'Best offer of NO.';
COMMENT ON COLUMN markets.last_price IS 'Price of the last execution, of YES in a binary market.';
COMMENT ON COLUMN markets.settlement_value IS 'What one YES was paid, elsewhere the settlement price; null unless settled.';
COMMENT ON COLUMN markets.close_time IS 'When trading is to end.';
COMMENT ON COLUMN markets.settled_at IS 'Effective time of the first verdict that was paid: settled or voided.';
COMMENT ON COLUMN markets.quote_time IS 'Effective time of the last quote.';
COMMENT ON COLUMN markets.outcome_value IS 'The outcome as last said, paid or not; null: unknown, or void.';
COMMENT ON COLUMN markets.dispute_reason IS 'Why the outcome was last contested.';
COMMENT ON COLUMN markets.settlement_fee IS 'Charged to each position that is paid.';
COMMENT ON COLUMN markets.settlement_revision IS 'Counts the verdicts that are paid; 0: none yet. Positions carry the one they were paid under.';
COMMENT ON COLUMN markets.is_fee_refunded IS 'Whether voiding gives back all fees.';
COMMENT ON COLUMN markets.is_unwound IS 'Whether voiding busts every trade.';
COMMENT ON COLUMN markets.market_metadata IS 'What the caller attached.';

CREATE TRIGGER history_is_kept BEFORE DELETE ON markets FOR EACH ROW EXECUTE FUNCTION refuse_history_change();
CREATE TRIGGER history_is_kept_truncate BEFORE TRUNCATE ON markets FOR EACH STATEMENT
    EXECUTE FUNCTION refuse_history_change();
CREATE TRIGGER history_is_kept_update BEFORE UPDATE ON markets FOR EACH ROW
    WHEN (NOT OLD.row_current_ind OR NEW.row_current_ind OR OLD.id <> NEW.id OR OLD.market_id <> NEW.market_id
          OR OLD.row_effective_date <> NEW.row_effective_date OR OLD.version <> NEW.version)
    EXECUTE FUNCTION refuse_history_change();

GRANT SELECT ON markets TO position_ledger_reader, position_ledger_projector;
GRANT INSERT ON markets TO position_ledger_projector;
GRANT UPDATE (row_current_ind, row_expiration_date) ON markets TO position_ledger_projector;

CREATE VIEW current_markets AS
SELECT m.id, m.market_id, m.row_effective_date, m.version, m.effective_at, m.execution_environment,
       m.platform_id, m.market_event_id, m.ticker, m.title, m.kind, m.currency, m.base_asset, m.multiplier,
       m.tick_size, m.price_min, m.price_max, m.margin_rate, m.netting, m.status, m.yes_price, m.no_price,
       m.yes_bid, m.yes_ask, m.no_bid, m.no_ask, m.last_price, m.settlement_value, m.close_time, m.settled_at,
       m.quote_time, m.outcome_value, m.dispute_reason, m.settlement_fee, m.settlement_revision,
       m.is_fee_refunded, m.is_unwound, m.market_metadata
  FROM markets AS m WHERE m.row_current_ind;
COMMENT ON VIEW current_markets IS 'The current version of every market.';

GRANT SELECT ON current_markets TO position_ledger_reader, position_ledger_projector;

-- verify

SELECT count(*) = 40 FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = 'markets';
SELECT count(*) = 2 FROM pg_index WHERE indisunique AND indisvalid AND pg_get_expr(indpred, indrelid) = 'row_current_ind'
   AND indexrelid IN (to_regclass(current_schema() || '.markets_one_current_row'),
                      to_regclass(current_schema() || '.markets_one_market_a_ticker'));
SELECT count(*) = 0 FROM pg_attribute WHERE attrelid = to_regclass(current_schema() || '.markets') AND attnum > 0
   AND NOT attisdropped AND col_description(attrelid, attnum) IS NULL;
SELECT count(*) = 1 FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'v'
   AND relname = 'current_markets';

-- rollback

DROP VIEW current_markets;
DROP TABLE markets;
