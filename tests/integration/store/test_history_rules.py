"""What a plan finds in files that change, hide or open what is written: traced in a ledger of its own each."""

from __future__ import annotations

import secrets

import pytest

from position_ledger.migration.judging import Circumstances, judge
from position_ledger.migration.session import Limits, open_session
from position_ledger.migration.trace import Tracer
from tests.support.migration_files import migration

PROJECTED = frozenset({"positions", "markets", "trades", "account_balance", "edges", "game_states"})
ROLE = f"position_ledger_test_{secrets.token_hex(4)}"
KEEPER = "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON events FOR EACH ROW"
NO_KEEPER = "DROP TRIGGER append_only ON events;"
OFF, ON = (f"ALTER TABLE events {word} TRIGGER append_only;" for word in ("DISABLE", "ENABLE"))
WIPE = "CREATE FUNCTION wipe() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';"
CHANGING = "CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
BEFORE = "CREATE TRIGGER others BEFORE INSERT OR UPDATE"
EACH = "FOR EACH ROW EXECUTE FUNCTION other()"

CASES = {
    "event deleted while the keeper is off": (f"{OFF} DELETE FROM events; {ON}", "dml-on-log"),
    "event changed in a block without triggers": (
        "DO $$ BEGIN SET LOCAL session_replication_role = replica; UPDATE events SET topic = 'x'; END $$;",
        "dml-on-log",
    ),
    "keys deleted": ("DELETE FROM append_keys;", "dml-on-log"),
    "log gone": ("DROP TABLE events CASCADE;", "log-gone"),
    "keeper that does nothing": (
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;",
        "history-unprotected",
    ),
    "keeper for replicas only": ("ALTER TABLE events ENABLE REPLICA TRIGGER append_only;", "history-unprotected"),
    "keeper that never fires": (
        f"{NO_KEEPER} {KEEPER} WHEN (false) EXECUTE FUNCTION refuse_change();",
        "history-unprotected",
    ),
    "history of a projected table": ("DROP TRIGGER history_is_kept ON positions;", "history-unprotected"),
    "two current rows": ("DROP INDEX positions_one_current_row;", "history-unprotected"),
    "events that readers do not see": ("ALTER TABLE events ENABLE ROW LEVEL SECURITY;", "history-hidden"),
    "a rule on the log": ("CREATE RULE none AS ON INSERT TO events DO INSTEAD NOTHING;", "history-hidden"),
    "log of another owner": ("ALTER TABLE events OWNER TO position_ledger_app;", "history-writable"),
    "another owner of the log": ("GRANT {owner} TO position_ledger_reader;", "history-writable"),
    "a role above all": (f"CREATE ROLE {ROLE} SUPERUSER;", "history-writable"),
    "rows that a trigger makes others of": (f"{CHANGING} {BEFORE} ON positions {EACH};", "history-writable"),
    "events that a trigger makes others of": (f"{CHANGING} {BEFORE} ON events {EACH};", "history-writable"),
    "rights of the owner for everybody": (WIPE, "definer-for-everybody"),
}
FINE = {
    "keeper always on": "ALTER TABLE events ENABLE ALWAYS TRIGGER append_only;",
    "a trigger that is told of rows": f"{CHANGING} CREATE TRIGGER told AFTER INSERT ON positions {EACH};",
    "a trigger on a table of one's own": f"CREATE TABLE own (id bigint); {CHANGING} {BEFORE} ON own {EACH};",
    "rights of the owner for some": f"{WIPE} REVOKE ALL ON FUNCTION wipe() FROM PUBLIC;",
    "an index of the log": "CREATE INDEX by_topic ON events (topic);",
    "a role of no weight": f"CREATE ROLE {ROLE}; GRANT position_ledger_reader TO {ROLE};",
    "what events say": "COMMENT ON TABLE events IS 'what happened';",
}


def errors(url: str, forward: str) -> set[str]:
    with open_session(url, Limits()) as connection:
        tracer = Tracer(connection, "ledger")
        owner = tracer.catalogue().tables["events"].owner
        traced = tracer.trace(migration(900, forward.replace("{owner}", owner)))
        found = judge(traced, (), Circumstances(PROJECTED, has_events=True))
    return {one.code for one in found if one.severity == "error"} - {"rollback-wrong"}


@pytest.mark.parametrize("case", CASES)
def test_a_plan_names_what_opens_history(ledger_database: str, case: str) -> None:
    forward, code = CASES[case]
    assert code in errors(ledger_database, forward)


@pytest.mark.parametrize("case", FINE)
def test_a_plan_lets_pass_what_leaves_history_alone(ledger_database: str, case: str) -> None:
    assert errors(ledger_database, FINE[case]) == set()
