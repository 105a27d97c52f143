-- Migration: 009
-- Description: The reference tables: strategies, probability_models, platforms, market_events
-- Date: 2026-11-22
-- Author: position-ledger maintainers
-- Related: src/position_ledger/reference_data.py
-- Summary: Plain tables whose ids positions, trades, edges and markets carry. A row is one version of what it describes:
--   its name, version and config never change and it is never deleted, because history refers to it; a change is a new
--   row with another version of the same name. Status and notes may change, the status along allowed transitions only.
-- Rollback: Drops the tables and what was entered in them. Ids in events and projected rows stay.

-- forward

CREATE TABLE strategies (
    strategy_id       bigint      NOT NULL,
    name              text        NOT NULL,
    version           text        NOT NULL DEFAULT '1',
    config            jsonb       NOT NULL DEFAULT '{}',
    status            text        NOT NULL DEFAULT 'draft',
    notes             text,
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    status_changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT strategies_pkey PRIMARY KEY (strategy_id),
    CONSTRAINT strategies_one_row_a_version UNIQUE (name, version),
    CONSTRAINT strategies_id_positive CHECK (strategy_id > 0),
    CONSTRAINT strategies_named CHECK (name ~ '\S' AND version ~ '\S'),
    CONSTRAINT strategies_config_is_object CHECK (jsonb_typeof(config) = 'object'),
    CONSTRAINT strategies_status CHECK (status IN ('draft', 'testing', 'active', 'inactive', 'deprecated'))
);
COMMENT ON TABLE strategies IS 'How trading decisions are made; one row for each version. Positions, trades and edges name it.';
COMMENT ON COLUMN strategies.strategy_id IS 'Primary key; numbered by the database where it is not given.';
COMMENT ON COLUMN strategies.name IS 'Of the strategy: the same on all versions of it.';
COMMENT ON COLUMN strategies.version IS 'Of this row among those of its name; any text.';
COMMENT ON COLUMN strategies.config IS 'Its settings. Never changed: another config is another version.';
COMMENT ON COLUMN strategies.status IS 'draft, testing, active, inactive or deprecated.';
COMMENT ON COLUMN strategies.notes IS 'For people; may change.';
COMMENT ON COLUMN strategies.created_at IS 'When the row was entered.';
COMMENT ON COLUMN strategies.status_changed_at IS 'When its status changed last.';

CREATE TABLE probability_models (
    model_id          bigint      NOT NULL,
    name              text        NOT NULL,
    version           text        NOT NULL DEFAULT '1',
    config            jsonb       NOT NULL DEFAULT '{}',
    status            text        NOT NULL DEFAULT 'draft',
    notes             text,
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    status_changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT probability_models_pkey PRIMARY KEY (model_id),
    CONSTRAINT probability_models_one_row_a_version UNIQUE (name, version),
    CONSTRAINT probability_models_id_positive CHECK (model_id > 0),
    CONSTRAINT probability_models_named CHECK (name ~ '\S' AND version ~ '\S'),
    CONSTRAINT probability_models_config_is_object CHECK (jsonb_typeof(config) = 'object'),
    CONSTRAINT probability_models_status CHECK (status IN ('draft', 'testing', 'active', 'inactive', 'deprecated'))
);
COMMENT ON TABLE probability_models IS 'How win probabilities are computed; one row for each version. Positions and edges name it.';
COMMENT ON COLUMN probability_models.model_id IS 'Primary key; numbered by the database where it is not given.';
COMMENT ON COLUMN probability_models.name IS 'Of the probability model: the same on all versions of it.';
COMMENT ON COLUMN probability_models.version IS 'Of this row among those of its name; any text.';
COMMENT ON COLUMN probability_models.config IS 'Its settings. Never changed: another config is another version.';
COMMENT ON COLUMN probability_models.status IS 'draft, testing, active, inactive or deprecated.';
COMMENT ON COLUMN probability_models.notes IS 'For people; may change.';
COMMENT ON COLUMN probability_models.created_at IS 'When the row was entered.';
COMMENT ON COLUMN probability_models.status_changed_at IS 'When its status changed last.';

CREATE TABLE platforms (
    platform_id       text        NOT NULL,
    name              text        NOT NULL,
    version           text        NOT NULL DEFAULT '1',
    config            jsonb       NOT NULL DEFAULT '{}',
    status            text        NOT NULL DEFAULT 'active',
    notes             text,
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    status_changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT platforms_pkey PRIMARY KEY (platform_id),
    CONSTRAINT platforms_one_row_a_version UNIQUE (name, version),
    CONSTRAINT platforms_id_not_blank CHECK (platform_id ~ '\S'),
    CONSTRAINT platforms_named CHECK (name ~ '\S' AND version ~ '\S'),
    CONSTRAINT platforms_config_is_object CHECK (jsonb_typeof(config) = 'object'),
    CONSTRAINT platforms_status CHECK (status IN ('draft', 'testing', 'active', 'inactive', 'deprecated'))
);
COMMENT ON TABLE platforms IS 'Where is traded: a venue, broker or exchange; one row for each version. Positions and markets name it.';
COMMENT ON COLUMN platforms.platform_id IS 'Primary key, in the words of the venue or the caller.';
COMMENT ON COLUMN platforms.name IS 'Of the platform: the same on all versions of it.';
COMMENT ON COLUMN platforms.version IS 'Of this row among those of its name; any text.';
COMMENT ON COLUMN platforms.config IS 'Its settings. Never changed: another config is another version.';
COMMENT ON COLUMN platforms.status IS 'draft, testing, active, inactive or deprecated.';
COMMENT ON COLUMN platforms.notes IS 'For people; may change.';
COMMENT ON COLUMN platforms.created_at IS 'When the row was entered.';
COMMENT ON COLUMN platforms.status_changed_at IS 'When its status changed last.';

CREATE TABLE market_events (
    market_event_id   text        NOT NULL,
    name              text        NOT NULL,
    version           text        NOT NULL DEFAULT '1',
    config            jsonb       NOT NULL DEFAULT '{}',
    status            text        NOT NULL DEFAULT 'active',
    notes             text,
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    status_changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT market_events_pkey PRIMARY KEY (market_event_id),
    CONSTRAINT market_events_one_row_a_version UNIQUE (name, version),
    CONSTRAINT market_events_id_not_blank CHECK (market_event_id ~ '\S'),
    CONSTRAINT market_events_named CHECK (name ~ '\S' AND version ~ '\S'),
    CONSTRAINT market_events_config_is_object CHECK (jsonb_typeof(config) = 'object'),
    CONSTRAINT market_events_status CHECK (status IN ('draft', 'testing', 'active', 'inactive', 'deprecated'))
);
COMMENT ON TABLE market_events IS 'What markets are about: a game, an election, a release; one row for each version. Markets name it.';
COMMENT ON COLUMN market_events.market_event_id IS 'Primary key, in the words of the venue or the caller.';
COMMENT ON COLUMN market_events.name IS 'Of the market event: the same on all versions of it.';
COMMENT ON COLUMN market_events.version IS 'Of this row among those of its name; any text.';
COMMENT ON COLUMN market_events.config IS 'Its settings. Never changed: another config is another version.';
COMMENT ON COLUMN market_events.status IS 'draft, testing, active, inactive or deprecated.';
COMMENT ON COLUMN market_events.notes IS 'For people; may change.';
COMMENT ON COLUMN market_events.created_at IS 'When the row was entered.';
COMMENT ON COLUMN market_events.status_changed_at IS 'When its status changed last.';

-- A row is numbered by the database when no id is given. One at a time, so that two callers never get the same number.
CREATE FUNCTION number_reference_row() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    key_column text := TG_ARGV[0];
    next_id    bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(TG_RELID::integer, 1);
    EXECUTE format('SELECT coalesce(max(%I), 0) + 1 FROM %I.%I', key_column, TG_TABLE_SCHEMA, TG_TABLE_NAME) INTO next_id;
    RETURN jsonb_populate_record(NEW, jsonb_build_object(key_column, next_id));
END
$$;

CREATE FUNCTION refuse_reference_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on %.% is refused: history refers to this row; enter another version of it, or change its status',
        TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$$;

-- draft -> testing -> active <-> inactive, back from testing to draft, from inactive to testing; deprecated is the end.
CREATE FUNCTION change_reference_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT (OLD.status || ' ' || NEW.status = ANY (ARRAY[
            'draft testing', 'draft active', 'draft deprecated',
            'testing draft', 'testing active', 'testing inactive', 'testing deprecated',
            'active inactive', 'active deprecated',
            'inactive testing', 'inactive active', 'inactive deprecated'])) THEN
        RAISE EXCEPTION 'a row of %.% that is % cannot become %', TG_TABLE_SCHEMA, TG_TABLE_NAME, OLD.status, NEW.status
            USING ERRCODE = 'check_violation', CONSTRAINT = TG_TABLE_NAME || '_status_transition';
    END IF;
    NEW.status_changed_at := clock_timestamp();
    RETURN NEW;
END
$$;

CREATE TRIGGER a_number BEFORE INSERT ON strategies FOR EACH ROW WHEN (NEW.strategy_id IS NULL)
    EXECUTE FUNCTION number_reference_row('strategy_id');
CREATE TRIGGER is_kept BEFORE DELETE ON strategies FOR EACH ROW EXECUTE FUNCTION refuse_reference_change();
CREATE TRIGGER is_kept_truncate BEFORE TRUNCATE ON strategies FOR EACH STATEMENT EXECUTE FUNCTION refuse_reference_change();
CREATE TRIGGER is_kept_update BEFORE UPDATE ON strategies FOR EACH ROW
    WHEN ((OLD.strategy_id, OLD.name, OLD.version, OLD.config, OLD.created_at)
          IS DISTINCT FROM (NEW.strategy_id, NEW.name, NEW.version, NEW.config, NEW.created_at))
    EXECUTE FUNCTION refuse_reference_change();
CREATE TRIGGER status_moves_on BEFORE UPDATE ON strategies FOR EACH ROW WHEN (OLD.status <> NEW.status)
    EXECUTE FUNCTION change_reference_status();

CREATE TRIGGER a_number BEFORE INSERT ON probability_models FOR EACH ROW WHEN (NEW.model_id IS NULL)
    EXECUTE FUNCTION number_reference_row('model_id');
CREATE TRIGGER is_kept BEFORE DELETE ON probability_models FOR EACH ROW EXECUTE FUNCTION refuse_reference_change();
CREATE TRIGGER is_kept_truncate BEFORE TRUNCATE ON probability_models FOR EACH STATEMENT EXECUTE FUNCTION refuse_reference_change();
CREATE TRIGGER is_kept_update BEFORE UPDATE ON probability_models FOR EACH ROW
    WHEN ((OLD.model_id, OLD.name, OLD.version, OLD.config, OLD.created_at)
          IS DISTINCT FROM (NEW.model_id, NEW.name, NEW.version, NEW.config, NEW.created_at))
    EXECUTE FUNCTION refuse_reference_change();
CREATE TRIGGER status_moves_on BEFORE UPDATE ON probability_models FOR EACH ROW WHEN (OLD.status <> NEW.status)
    EXECUTE FUNCTION change_reference_status();

CREATE TRIGGER is_kept BEFORE DELETE ON platforms FOR EACH ROW EXECUTE FUNCTION refuse_reference_change();
CREATE TRIGGER is_kept_truncate BEFORE TRUNCATE ON platforms FOR EACH STATEMENT EXECUTE FUNCTION refuse_reference_change();
CREATE TRIGGER is_kept_update BEFORE UPDATE ON platforms FOR EACH ROW
    WHEN ((OLD.platform_id, OLD.name, OLD.version, OLD.config, OLD.created_at)
          IS DISTINCT FROM (NEW.platform_id, NEW.name, NEW.version, NEW.config, NEW.created_at))
    EXECUTE FUNCTION refuse_reference_change();
CREATE TRIGGER status_moves_on BEFORE UPDATE ON platforms FOR EACH ROW WHEN (OLD.status <> NEW.status)
    EXECUTE FUNCTION change_reference_status();

CREATE TRIGGER is_kept BEFORE DELETE ON market_events FOR EACH ROW EXECUTE FUNCTION refuse_reference_change();
CREATE TRIGGER is_kept_truncate BEFORE TRUNCATE ON market_events FOR EACH STATEMENT EXECUTE FUNCTION refuse_reference_change();
CREATE TRIGGER is_kept_update BEFORE UPDATE ON market_events FOR EACH ROW
    WHEN ((OLD.market_event_id, OLD.name, OLD.version, OLD.config, OLD.created_at)
          IS DISTINCT FROM (NEW.market_event_id, NEW.name, NEW.version, NEW.config, NEW.created_at))
    EXECUTE FUNCTION refuse_reference_change();
CREATE TRIGGER status_moves_on BEFORE UPDATE ON market_events FOR EACH ROW WHEN (OLD.status <> NEW.status)
    EXECUTE FUNCTION change_reference_status();

GRANT SELECT ON strategies, probability_models, platforms, market_events
    TO position_ledger_reader, position_ledger_appender, position_ledger_projector;
GRANT INSERT, UPDATE (status, notes) ON strategies, probability_models, platforms, market_events TO position_ledger_appender;
REVOKE ALL ON FUNCTION number_reference_row, refuse_reference_change, change_reference_status FROM PUBLIC;

-- verify

SELECT count(*) = 4 FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'
   AND relname IN ('strategies', 'probability_models', 'platforms', 'market_events');
SELECT count(*) = 18 FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
 WHERE c.relnamespace = current_schema()::regnamespace AND NOT t.tgisinternal
   AND c.relname IN ('strategies', 'probability_models', 'platforms', 'market_events');
SELECT count(*) = 0 FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
 WHERE c.relnamespace = current_schema()::regnamespace AND c.relname IN ('strategies', 'probability_models', 'platforms', 'market_events')
   AND a.attnum > 0 AND NOT a.attisdropped AND col_description(a.attrelid, a.attnum) IS NULL;
SELECT NOT has_table_privilege('position_ledger_app', current_schema() || '.strategies', 'UPDATE, DELETE, TRUNCATE');

-- rollback

DROP TABLE market_events;
DROP TABLE platforms;
DROP TABLE probability_models;
DROP TABLE strategies;
DROP FUNCTION change_reference_status();
DROP FUNCTION refuse_reference_change();
DROP FUNCTION number_reference_row();
