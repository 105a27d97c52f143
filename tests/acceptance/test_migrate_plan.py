"""`migrate plan` over migrations that strangers might write, good and bad: each found for the right reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from position_ledger import Ledger
from position_ledger.operations import sampling
from position_ledger.settings import load_settings
from tests.support import engine
from tests.support.command_line import CommandLine, in_this_process
from tests.support.migration_files import migration_text
from tests.support.plan_cases import BAD, DESKS, DOUBTFUL, GOOD, MORE, REASONS, REFERS, ROWS, TEAM, Case

if TYPE_CHECKING:
    from collections.abc import Iterator

    from position_ledger.testing.databases import Template

SHIPPED = Path("migrations")


@pytest.fixture(scope="module")
def desk_database(ledger_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A ledger with history, plain tables with rows, one migration more than the release, and a table by hand."""
    folder = tmp_path_factory.mktemp("migrations")
    for source in SHIPPED.glob("*.sql"):
        (folder / source.name).write_bytes(source.read_bytes())
    last = max(int(path.name[:3]) for path in folder.glob("*.sql"))
    rollback = "DROP VIEW desk_names; DROP TABLE empty_rooms, ticks, desk_limits, desks;"
    (folder / f"{last + 1:03}_desks.sql").write_text(migration_text(last + 1, DESKS, rollback=rollback))
    with ledger_template.clone() as url:
        settings = load_settings(database_url=url, redis_url="redis://127.0.0.1:1/0", migrations=str(folder))
        engine.migrate(settings)
        with Ledger(settings, engine.reached(settings)) as ledger:
            traffic = engine.Traffic(ledger, 5)
            for _ in range(60):
                traffic.once()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(ROWS.encode())
        yield url, folder


@pytest.fixture
def folder(desk_database: tuple[str, Path], tmp_path: Path) -> Path:
    """A copy of the migrations that are applied."""
    target = tmp_path / "migrations"
    target.mkdir()
    for source in desk_database[1].iterdir():
        (target / source.name).write_bytes(source.read_bytes())
    return target


@pytest.fixture
def run(desk_database: tuple[str, Path]) -> CommandLine:
    return in_this_process(desk_database[0])


def add(folder: Path, case: Case) -> str:
    """Write the case as the next migration; answers its file name."""
    number = max(int(path.name[:3]) for path in folder.glob("*.sql")) + 1
    text = migration_text(number, case.forward, case.verify, case.rollback, rollback_says=case.rollback_says)
    (folder / f"{number:03}_case.sql").write_text(text)
    return f"{number:03}_case.sql"


def planned(run: CommandLine, folder: Path, case: Case) -> tuple[int, dict[str, Any]]:
    add(folder, case)
    settings = {"POSITION_LEDGER_MIGRATIONS": str(folder)}
    if case.projections:
        settings["POSITION_LEDGER_PROJECTIONS"] = case.projections
    answer = run("migrate", "plan", "--json", **settings)
    assert not answer.err, answer.err
    return answer.code, answer.document


def codes(plan: dict[str, Any], severity: str) -> set[str]:
    return {one["code"] for one in plan["findings"] if one["severity"] == severity}


@pytest.mark.parametrize("case", [*GOOD, *BAD, *DOUBTFUL], ids=lambda case: case.name)
def test_a_plan_says_what_is_right_and_wrong(run: CommandLine, folder: Path, case: Case) -> None:
    """S10, S12, S13, S24, S71, S72: what is found, at which line, with the safe form, and the exit code."""
    code, plan = planned(run, folder, case)

    assert codes(plan, "error") == case.errors, plan["findings"]
    assert codes(plan, "warning") - {"drift"} == case.warnings - {"drift"}, plan["findings"]
    assert code == (1 if case.errors else 0)
    assert plan["safe"] is not bool(case.errors)
    text = "\n".join(f"{one['cause']}\n{one['safe_form']}" for one in plan["findings"])
    assert case.says in text
    assert case.safe in text
    if case.rebuilds:
        needs = {one["table"]: one["need"] for one in plan["projections"]}
        assert [table for table, need in needs.items() if need == "rebuild"] == [case.rebuilds][
            : case.rebuilds != "nothing"
        ]


@pytest.mark.soak
@pytest.mark.parametrize("case", MORE, ids=lambda case: case.name)
def test_a_plan_says_what_else_is_wrong(run: CommandLine, folder: Path, case: Case) -> None:
    """What nobody would look for: values, keepers of history, effects that are none."""
    test_a_plan_says_what_is_right_and_wrong(run, folder, case)


def test_a_foreign_key_of_a_projected_table_stands_on_a_plain_file(run: CommandLine, folder: Path) -> None:
    """S67: the parents are made by one pending file, history is checked against them in the next."""
    plain = Case("parents", REASONS, "DROP TABLE exit_reasons;")
    add(folder, plain)
    code, plan = planned(run, folder, Case("key", REFERS, "ALTER TABLE positions DROP CONSTRAINT of_reason;"))
    assert (code, codes(plan, "error")) == (0, set()), plan["findings"]
    assert [one["kind"] for one in plan["files"]] == ["plain", "projected"]
    assert any("of_reason" in line for line in plan["files"][1]["foreign_keys"])

    first = min(folder.glob("*_case.sql"))
    first.write_text(re.sub(r"VALUES .*;", "VALUES ('lunch');", first.read_text()))
    answer = run("migrate", "plan", "--json", POSITION_LEDGER_MIGRATIONS=str(folder))
    assert answer.code == 1
    (found,) = [one for one in answer.document["findings"] if one["severity"] == "error"]
    assert (found["code"], found["file"]) == ("foreign-key-violation", plan["files"][1]["filename"])


def test_an_index_built_while_everybody_goes_on_is_good(run: CommandLine, folder: Path) -> None:
    number = max(int(path.name[:3]) for path in folder.glob("*.sql")) + 1
    text = migration_text(
        number,
        "CREATE INDEX CONCURRENTLY by_price ON ticks (price);",
        "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('by_price');",
        "DROP INDEX CONCURRENTLY by_price;",
        transactional=False,
    )
    (folder / f"{number:03}_index.sql").write_text(text)
    answer = run("migrate", "plan", "--json", POSITION_LEDGER_MIGRATIONS=str(folder))
    assert answer.code == 0, answer.document["findings"]
    (file,) = answer.document["files"]
    assert file["rollback"]["state"] == "proven"
    assert file["statements"][0]["locks"] == [{"table": "ticks", "mode": "SHARE UPDATE EXCLUSIVE"}]


def test_the_document_says_who_sets_and_carries_a_column(run: CommandLine, folder: Path) -> None:
    """S12, S13: the checklist of open, update, close and list comes from the events of the log."""
    case = next(one for one in GOOD if one.projections)
    _, plan = planned(run, folder, case)
    (positions,) = [one for one in plan["projections"] if one["table"] == "positions"]
    (story,) = positions["checklist"]
    assert story["column"] == "worst_mark"
    assert story["set_by"] == ["position.opened"]
    assert story["changed_by"] == ["position.marked"]
    assert positions["need"] == "rebuild"
    assert positions["sampled_events"] > 0
    assert positions["estimated_s"] is not None
    (file,) = plan["files"]
    (table,) = file["tables"]
    assert (table["name"], table["change"], table["projected"]) == ("positions", "changed", True)
    assert [(one["name"], one["nullable"]) for one in table["columns"]] == [("worst_mark", False)]
    assert {line.partition(" ")[0] for line in file["views"]} >= {"current_positions", "open_positions"}

    settings = {"POSITION_LEDGER_MIGRATIONS": str(folder), "POSITION_LEDGER_PROJECTIONS": TEAM}
    page = run("migrate", "plan", "--markdown", **settings).out
    for heading in ("# Migration plan", "### Table `positions` (changed)", "## Projected tables", "### Tests needed"):
        assert heading in page
    assert "- [ ] column worst_mark: set by position.opened; changed by position.marked" in page
    text = run("migrate", "plan", **settings)
    assert (text.code, "safe to run: position-ledger migrate up" in text.out) == (0, True)


def test_what_is_unsafe_is_shown_with_its_safe_form(run: CommandLine, folder: Path) -> None:
    name = add(folder, next(one for one in BAD if "S71" in one.name))
    for form in ((), ("--markdown",)):
        answer = run("migrate", "plan", *form, POSITION_LEDGER_MIGRATIONS=str(folder))
        assert answer.code == 1
        assert "1 error" in answer.out
        assert f"{name} line 11" in answer.out
        assert "VALIDATE CONSTRAINT desks_owner_given" in answer.out


def test_files_behind_one_that_fails_are_named_and_not_judged(run: CommandLine, folder: Path) -> None:
    add(folder, Case("first", "SELECT 1/0;", "SELECT 1;"))
    second = add(folder, Case("second", "CREATE TABLE rooms (id bigint);", "DROP TABLE rooms;"))
    answer = run("migrate", "plan", "--json", POSITION_LEDGER_MIGRATIONS=str(folder))
    assert (answer.code, answer.document["untraced"]) == (1, [second])
    assert codes(answer.document, "error") == {"statement-failed"}
    assert f"{second}  not tried" in run("migrate", "plan", POSITION_LEDGER_MIGRATIONS=str(folder)).out


def test_what_a_migration_makes_in_the_cluster_does_not_outlive_its_plan(
    run: CommandLine, folder: Path, desk_database: tuple[str, Path]
) -> None:
    role = "plan_of_a_stranger"
    case = Case(
        "role",
        f"CREATE ROLE {role} NOLOGIN; GRANT SELECT ON desks TO {role};",
        f"DROP OWNED BY {role}; DROP ROLE {role};",
    )
    code, plan = planned(run, folder, case)
    assert code == 0, plan["findings"]
    with psycopg.connect(desk_database[0]) as connection:
        left = connection.execute("SELECT rolname FROM pg_roles WHERE rolname = %s", [role]).fetchall()
        scratch = connection.execute("SELECT datname FROM pg_database WHERE datname ~ 'ledger_scratch'").fetchall()
    assert (left, scratch) == ([], [])


def test_nothing_pending_an_applied_number_and_files_that_are_no_migrations(run: CommandLine, folder: Path) -> None:
    settings = {"POSITION_LEDGER_MIGRATIONS": str(folder)}
    nothing = run("migrate", "plan", **settings)
    assert (nothing.code, nothing.out) == (0, "nothing is pending: every migration of the folder is applied\n")
    desks = max(int(path.name[:3]) for path in folder.glob("*_desks.sql"))
    applied = run("migrate", "plan", str(desks), **settings)
    assert applied.code == 0
    assert "table desks: new" in applied.out
    assert "already applied" in applied.out
    unknown = run("migrate", "plan", "99", **settings)
    assert (unknown.code, "there is no migration 099" in unknown.err) == (2, True)
    (folder / f"{desks + 1:03}_case.sql").write_text("CREATE TABLE rooms (id bigint);")
    headless = run("migrate", "plan", **settings)
    assert (headless.code, f"{desks + 1:03}_case.sql" in headless.err) == (2, True)
    assert "Traceback" not in headless.err


def test_the_sum_file_has_to_fit(run: CommandLine, folder: Path) -> None:
    (folder / "migrations.sum").write_text("001_events.sql 00\n")
    name = add(folder, GOOD[0])
    answer = run("migrate", "plan", "--json", POSITION_LEDGER_MIGRATIONS=str(folder))
    assert (answer.code, codes(answer.document, "error")) == (1, {"sum-file"})
    assert answer.document["pending"] == [name]


def test_a_file_without_a_way_back_is_no_part_of_a_change_set(run: CommandLine, folder: Path) -> None:
    """As `up` would refuse it: what cannot be undone has to be applied on its own first."""
    lasting = Case(
        "lasting", "INSERT INTO desks VALUES (7, 'x', NULL, 1);", "", rollback_says="none, because we want it"
    )
    name = add(folder, lasting)
    case = next(one for one in GOOD if one.projections)
    code, plan = planned(run, folder, case)
    assert (code, codes(plan, "error")) == (1, {"lasting-in-set"})
    (found,) = [one for one in plan["findings"] if one["severity"] == "error"]
    assert f"migrate up {name[:3]}" in found["cause"]


def test_a_backup_that_is_wanted_and_not_there_is_an_error(run: CommandLine, folder: Path) -> None:
    """S6: the plan says what `up` would."""
    add(folder, GOOD[0])
    settings = {"POSITION_LEDGER_MIGRATIONS": str(folder), "POSITION_LEDGER_BACKUP_POLICY": "refuse"}
    answer = run("migrate", "plan", "--json", **settings)
    assert (answer.code, codes(answer.document, "error")) == (1, {"no-backup"})
    warned = run("migrate", "plan", POSITION_LEDGER_MIGRATIONS=str(folder))
    assert (warned.code, "backup" in warned.out) == (0, True)
    assert "to apply in place:" in warned.out


def test_the_sample_of_a_long_log_takes_streams_from_all_over_it(desk_database: tuple[str, Path]) -> None:
    """Given a log that is said to be long, then whole beginnings of streams come, each event once and in order."""
    settings = load_settings(database_url=desk_database[0])
    with engine.connected(settings, as_app=False) as connection:
        topics = [row[0] for row in connection.execute("SELECT DISTINCT topic FROM events")]
        short = sampling.sample(connection, 10, topics)
        long = sampling.sample(connection, sampling.EVENTS_MAX + 1, topics)
    assert long == short
    assert [(row.stream, row.version) for row in long] == sorted({(row.stream, row.version) for row in long})
