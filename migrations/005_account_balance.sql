-- Migration: 005
-- Description: The account_balance table, its current rows and the postings of every account
-- Date: 2026-11-22
-- Author: position-ledger maintainers
-- Related: projections/account_balance.py, docs/ARCHITECTURE.md (Money)
-- Summary: One version for each event that moves money of an account. The database refuses a version whose postings do
--   not sum to zero, or whose free and locked are not its cash.
-- Rollback: Drops table and views. No event is lost; the rows can be projected again.

-- forward

CREATE TABLE account_balance (
    id                    bigint         NOT NULL,
    balance_id            text           NOT NULL,
    row_current_ind       boolean        NOT NULL,
    row_effective_date    timestamptz    NOT NULL,
    row_expiration_date   timestamptz,
    version               integer        NOT NULL,
    effective_at          timestamptz    NOT NULL,
    execution_environment text           NOT NULL,
    account_id            text           NOT NULL,
    platform_id           text,
    currency              text           NOT NULL,
    cash                  numeric(38,18) NOT NULL,
    locked                numeric(38,18) NOT NULL,
    free                  numeric(38,18) NOT NULL,
    change                numeric(38,18) NOT NULL,
    cause                 text           NOT NULL,
    cause_id              bigint,
    reason                text,
    is_cash_controlled    boolean        NOT NULL,
    posted_free           numeric(38,18) NOT NULL,
    posted_locked         numeric(38,18) NOT NULL,
    posted_holdings       numeric(38,18) NOT NULL,
    posted_realized       numeric(38,18) NOT NULL,
    posted_fees           numeric(38,18) NOT NULL,
    posted_external       numeric(38,18) NOT NULL,
    CONSTRAINT account_balance_pkey PRIMARY KEY (id),
    CONSTRAINT account_balance_one_row_a_version UNIQUE (balance_id, version),
    CONSTRAINT account_balance_current_has_no_end CHECK (row_current_ind = (row_expiration_date IS NULL)),
    CONSTRAINT account_balance_interval_not_empty CHECK (row_expiration_date > row_effective_date),
    CONSTRAINT account_balance_version_counts_from_1 CHECK (version >= 1),
    CONSTRAINT account_balance_business_key CHECK (CASE WHEN version = 1 THEN balance_id = 'BAL-' || id
                                                        ELSE balance_id ~ '^BAL-[1-9][0-9]*$' END),
    CONSTRAINT account_balance_environment CHECK (execution_environment IN ('live', 'paper', 'backtest')),
    CONSTRAINT account_balance_free_and_locked CHECK (cash = free + locked),
    CONSTRAINT account_balance_change CHECK (change = posted_free + posted_locked),
    CONSTRAINT account_balance_postings_sum_to_zero CHECK (posted_free + posted_locked + posted_holdings + posted_realized
                                                           + posted_fees + posted_external = 0)
);
CREATE UNIQUE INDEX account_balance_one_current_row ON account_balance (balance_id) WHERE row_current_ind;
CREATE UNIQUE INDEX account_balance_one_balance_a_key ON account_balance (execution_environment, account_id, currency)
    WHERE row_current_ind;
CREATE INDEX account_balance_known_at ON account_balance (balance_id, row_effective_date);

COMMENT ON TABLE account_balance IS 'The money of one account in one currency; a row for each version of it.';
COMMENT ON COLUMN account_balance.id IS 'Surrogate key: the number of the event that made this version; the same after every rebuild.';
COMMENT ON COLUMN account_balance.balance_id IS 'Business key: BAL-<id of the first version>, one for each account, currency and environment.';
COMMENT ON COLUMN account_balance.row_current_ind IS 'True on exactly one version of a balance.';
COMMENT ON COLUMN account_balance.row_effective_date IS 'When the ledger learned this version (recorded time); start of its interval, included.';
COMMENT ON COLUMN account_balance.row_expiration_date IS 'Start of the next version; null while current. The end is not included.';
COMMENT ON COLUMN account_balance.version IS '1, 2, 3 … in each balance.';
COMMENT ON COLUMN account_balance.effective_at IS 'When the event of this version happened at the venue.';
COMMENT ON COLUMN account_balance.execution_environment IS 'live, paper or backtest; never mixed in a sum.';
COMMENT ON COLUMN account_balance.account_id IS 'The account.';
COMMENT ON COLUMN account_balance.platform_id IS 'The platform that holds the money, as first told.';
COMMENT ON COLUMN account_balance.currency IS 'Currency of every amount of the row.';
COMMENT ON COLUMN account_balance.cash IS 'All money at the venue, collateral included.';
COMMENT ON COLUMN account_balance.locked IS 'The part that stands behind open positions: cost of binaries; proceeds and margin of shorts.';
COMMENT ON COLUMN account_balance.free IS 'cash - locked: what the venue calls available; below zero: overdrawn.';
COMMENT ON COLUMN account_balance.change IS 'By how much this version changed cash.';
COMMENT ON COLUMN account_balance.cause IS 'Why: deposit, withdrawal, …, or what happened to a position: opened, increased, reduced, closed, settled …';
COMMENT ON COLUMN account_balance.cause_id IS 'The version of positions with this id is what moved the money; null for cash of its own.';
COMMENT ON COLUMN account_balance.reason IS 'What the caller said about it.';
COMMENT ON COLUMN account_balance.is_cash_controlled IS 'Whether intentions are refused for lack of free money: from the first deposit on.';
COMMENT ON COLUMN account_balance.posted_free IS 'Posting of this event: cash that nothing stands on.';
COMMENT ON COLUMN account_balance.posted_locked IS 'Posting: cash that stands behind positions.';
COMMENT ON COLUMN account_balance.posted_holdings IS 'Posting: holdings at cost.';
COMMENT ON COLUMN account_balance.posted_realized IS 'Posting: minus what was realized before fees.';
COMMENT ON COLUMN account_balance.posted_fees IS 'Posting: fees paid.';
COMMENT ON COLUMN account_balance.posted_external IS 'Posting: minus what came from outside the account.';

CREATE TRIGGER history_is_kept BEFORE DELETE ON account_balance FOR EACH ROW EXECUTE FUNCTION refuse_history_change();
CREATE TRIGGER history_is_kept_truncate BEFORE TRUNCATE ON account_balance FOR EACH STATEMENT
    EXECUTE FUNCTION refuse_history_change();
CREATE TRIGGER history_is_kept_update BEFORE UPDATE ON account_balance FOR EACH ROW
    WHEN (NOT OLD.row_current_ind OR NEW.row_current_ind OR OLD.id <> NEW.id OR OLD.balance_id <> NEW.balance_id
          OR OLD.row_effective_date <> NEW.row_effective_date OR OLD.version <> NEW.version)
    EXECUTE FUNCTION refuse_history_change();

GRANT SELECT ON account_balance TO position_ledger_reader, position_ledger_projector;
GRANT INSERT ON account_balance TO position_ledger_projector;
GRANT UPDATE (row_current_ind, row_expiration_date) ON account_balance TO position_ledger_projector;

CREATE VIEW current_account_balance AS
SELECT b.id, b.balance_id, b.row_effective_date, b.version, b.effective_at, b.execution_environment, b.account_id,
       b.platform_id, b.currency, b.cash, b.locked, b.free, b.change, b.cause, b.cause_id, b.reason,
       b.is_cash_controlled, b.posted_free, b.posted_locked, b.posted_holdings, b.posted_realized, b.posted_fees,
       b.posted_external
  FROM account_balance AS b WHERE b.row_current_ind;
COMMENT ON VIEW current_account_balance IS 'The current version of every balance.';

CREATE VIEW postings AS
SELECT b.id, b.balance_id, b.row_effective_date AS recorded_at, b.effective_at, b.execution_environment, b.account_id,
       b.currency, b.cause, b.cause_id, p.book, p.amount
  FROM account_balance AS b
 CROSS JOIN LATERAL (VALUES ('free', b.posted_free), ('locked', b.posted_locked), ('holdings', b.posted_holdings),
                            ('realized', b.posted_realized), ('fees', b.posted_fees),
                            ('external', b.posted_external)) AS p (book, amount)
 WHERE p.amount <> 0;
COMMENT ON VIEW postings IS 'Double entry: what each event adds to each book of an account; the amounts of one id sum to zero.';

GRANT SELECT ON current_account_balance, postings TO position_ledger_reader, position_ledger_projector;

-- verify

SELECT count(*) = 25 FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = 'account_balance';
SELECT indisunique AND indisvalid AND pg_get_expr(indpred, indrelid) = 'row_current_ind' FROM pg_index
 WHERE indexrelid = to_regclass(current_schema() || '.account_balance_one_current_row');
SELECT count(*) = 0 FROM pg_attribute WHERE attrelid = to_regclass(current_schema() || '.account_balance') AND attnum > 0
   AND NOT attisdropped AND col_description(attrelid, attnum) IS NULL;
SELECT count(*) = 2 FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'v'
   AND relname IN ('current_account_balance', 'postings');

-- rollback

DROP VIEW postings;
DROP VIEW current_account_balance;
DROP TABLE account_balance;
