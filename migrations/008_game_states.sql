-- Migration: 008
-- Description: The game_states table and its view
-- Date: 2026-11-22
-- Author: position-ledger maintainers
-- Related: projections/game_states.py
-- Summary: Dual-key SCD Type 2 as positions: id is the number of the event that made the version, game_state_id stays the
--   same on all versions. The database refuses two current rows, empty or reversed intervals, and changes to history.
-- Rollback: Drops table and view. No event is lost; the rows can be projected again.

-- forward

CREATE TABLE game_states (
    id                    bigint         NOT NULL,
    game_state_id         text           NOT NULL,
    row_current_ind       boolean        NOT NULL,
    row_effective_date    timestamptz    NOT NULL,
    row_expiration_date   timestamptz,
    version               integer        NOT NULL,
    effective_at          timestamptz    NOT NULL,
    execution_environment text           NOT NULL,
    game_id               text           NOT NULL,
    league                text,
    home_team             text,
    away_team             text,
    home_score            integer,
    away_score            integer,
    period                integer,
    clock_seconds         numeric(38,18),
    clock_display         text,
    game_status           text,
    situation             jsonb,
    CONSTRAINT game_states_pkey PRIMARY KEY (id),
    CONSTRAINT game_states_one_row_a_version UNIQUE (game_state_id, version),
    CONSTRAINT game_states_current_has_no_end CHECK (row_current_ind = (row_expiration_date IS NULL)),
    CONSTRAINT game_states_interval_not_empty CHECK (row_expiration_date > row_effective_date),
    CONSTRAINT game_states_version_counts_from_1 CHECK (version >= 1),
    CONSTRAINT game_states_business_key CHECK (CASE WHEN version = 1 THEN game_state_id = 'GS-' || id
        ELSE game_state_id ~ '^GS-[1-9][0-9]*$' END),
    CONSTRAINT game_states_environment CHECK (execution_environment IN ('live', 'paper', 'backtest')),
    CONSTRAINT game_states_scores CHECK (home_score >= 0 AND away_score >= 0),
    CONSTRAINT game_states_period CHECK (period >= 0),
    CONSTRAINT game_states_clock CHECK (clock_seconds >= 0)
);
CREATE UNIQUE INDEX game_states_one_current_row ON game_states (game_state_id) WHERE row_current_ind;
CREATE UNIQUE INDEX game_states_one_row_a_game ON game_states (execution_environment, game_id) WHERE row_current_ind;
CREATE INDEX game_states_known_at ON game_states (game_state_id, row_effective_date);
CREATE INDEX game_states_by_game ON game_states (game_id, execution_environment) WHERE row_current_ind;

COMMENT ON TABLE game_states IS 'How a game stood: score, period, clock and situation; a row for each version of it.';
COMMENT ON COLUMN game_states.id IS 'Surrogate key: the number of the event that made this version; the same after every rebuild.';
COMMENT ON COLUMN game_states.game_state_id IS 'Business key: GS-<id of the first version>.';
COMMENT ON COLUMN game_states.row_current_ind IS 'True on exactly one version of a game.';
COMMENT ON COLUMN game_states.row_effective_date IS 'When the ledger learned this version (recorded time); start of its interval, included.';
COMMENT ON COLUMN game_states.row_expiration_date IS 'Start of the next version; null while current. The end is not included.';
COMMENT ON COLUMN game_states.version IS '1, 2, 3 … in each game.';
COMMENT ON COLUMN game_states.effective_at IS 'When the event of this version happened.';
COMMENT ON COLUMN game_states.execution_environment IS 'live, paper or backtest; never mixed in a sum.';
COMMENT ON COLUMN game_states.game_id IS 'The caller''s id of the game, unique in its environment.';
COMMENT ON COLUMN game_states.league IS 'League or competition.';
COMMENT ON COLUMN game_states.home_team IS 'The team named first.';
COMMENT ON COLUMN game_states.away_team IS 'The team named second.';
COMMENT ON COLUMN game_states.home_score IS 'Points, goals or runs of the home team; null: not known.';
COMMENT ON COLUMN game_states.away_score IS 'Points, goals or runs of the away team; null: not known.';
COMMENT ON COLUMN game_states.period IS 'Quarter, half, innings …, from 1; overtime counts on.';
COMMENT ON COLUMN game_states.clock_seconds IS 'What the clock of the period shows, in seconds.';
COMMENT ON COLUMN game_states.clock_display IS 'The clock as it is shown.';
COMMENT ON COLUMN game_states.game_status IS 'In the words of the feed.';
COMMENT ON COLUMN game_states.situation IS 'Whatever else the sport has.';

CREATE TRIGGER history_is_kept BEFORE DELETE ON game_states FOR EACH ROW EXECUTE FUNCTION refuse_history_change();
CREATE TRIGGER history_is_kept_truncate BEFORE TRUNCATE ON game_states FOR EACH STATEMENT
    EXECUTE FUNCTION refuse_history_change();
CREATE TRIGGER history_is_kept_update BEFORE UPDATE ON game_states FOR EACH ROW
    WHEN (NOT OLD.row_current_ind OR NEW.row_current_ind OR OLD.id <> NEW.id OR OLD.game_state_id <> NEW.game_state_id
          OR OLD.row_effective_date <> NEW.row_effective_date OR OLD.version <> NEW.version)
    EXECUTE FUNCTION refuse_history_change();

GRANT SELECT ON game_states TO position_ledger_reader, position_ledger_projector;
GRANT INSERT ON game_states TO position_ledger_projector;
GRANT UPDATE (row_current_ind, row_expiration_date) ON game_states TO position_ledger_projector;

CREATE VIEW current_game_states AS
SELECT g.id, g.game_state_id, g.row_effective_date, g.version, g.effective_at, g.execution_environment, g.game_id,
       g.league, g.home_team, g.away_team, g.home_score, g.away_score, g.period, g.clock_seconds, g.clock_display,
       g.game_status, g.situation
  FROM game_states AS g WHERE g.row_current_ind;
COMMENT ON VIEW current_game_states IS 'How every game stands.';

GRANT SELECT ON current_game_states TO position_ledger_reader, position_ledger_projector;

-- verify

SELECT count(*) = 19 FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = 'game_states';
SELECT indisunique AND indisvalid AND pg_get_expr(indpred, indrelid) = 'row_current_ind' FROM pg_index
 WHERE indexrelid = to_regclass(current_schema() || '.game_states_one_current_row');
SELECT count(*) = 0 FROM pg_attribute WHERE attrelid = to_regclass(current_schema() || '.game_states') AND attnum > 0
   AND NOT attisdropped AND col_description(attrelid, attnum) IS NULL;
SELECT count(*) = 3 FROM pg_trigger WHERE tgrelid = to_regclass(current_schema() || '.game_states') AND NOT tgisinternal;
SELECT to_regclass(current_schema() || '.current_game_states') IS NOT NULL;

-- rollback

DROP VIEW current_game_states;
DROP TABLE game_states;
