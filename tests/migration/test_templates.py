"""`migrate new`: every template, filled, is planned, applied and rolled back as it was written (S7, S15, S16)."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from position_ledger.errors import MigrationError
from position_ledger.migration import Migrator, diff, load_folder, read_catalogue
from position_ledger.migration.templates import TEMPLATES, Filling
from position_ledger.operations import new_migration, renew_sum
from position_ledger.settings import Settings, load_settings
from tests.support.command_line import InThisProcess, on
from tests.support.migration_files import migration_text

PRODUCT = Path(__file__).parents[2] / "migrations"
OWN = len(list(PRODUCT.glob("*.sql"))) + 1
"""The number of the team's own migration."""
PROJECTED = ("positions", "markets", "trades", "account_balance", "edges", "game_states")
NOTES = Filling(table="positions", column=("notes",), type=("text",))
FILLED: dict[str, list[tuple[str, Filling]]] = {
    "add-column": [
        ("add_notes", NOTES),
        (
            "add_desk",
            Filling(
                table="strategies",
                column=("desk",),
                type=("numeric(38,18)",),
                not_null=True,
                default="0",
                comment="It's new",
            ),
        ),
    ],
    "projected-table": [
        (
            "margin_calls",
            Filling(
                table="margin_calls",
                key="margin_call_id",
                column=("execution_environment", "amount"),
                type=("text", "numeric(38,18)"),
                not_null=True,
            ),
        )
    ],
    "change-type": [
        ("wider_rank", Filling(table="exit_reasons", column=("rank",), type=("bigint",), old_type="integer")),
        (
            "bounded_reason_below_a_view",
            Filling(table="positions", column=("exit_reason",), type=("varchar(500)",), old_type="text"),
        ),
    ],
    "reference-data": [
        (
            "exit_reason_rows",
            Filling(
                table="exit_reasons",
                column=("reason_code", "label", "rank"),
                row=("'manual', 'Closed by hand (or two)', 1", "'risk, limit', NULL, greatest(1, 2)"),
            ),
        )
    ],
    "add-foreign-key": [
        (
            "position_reasons",
            Filling(table="positions", column=("exit_reason",), references="exit_reasons(reason_code)"),
        ),
        ("market_reasons", Filling(table="notes", column=("reason",), references="exit_reasons(reason_code)")),
    ],
    "concurrent-index": [
        ("find_notes", Filling(table="notes", column=("reason", "id"), unique=True)),
        ("find_positions", Filling(table="positions", column=("account_id",))),
    ],
}
ON_18 = pytest.mark.parametrize("server_url", ["18"], indirect=True)
"""What the files hold does not depend on the version of the server."""
BASE = """
CREATE TABLE exit_reasons (reason_code text PRIMARY KEY, label text, rank integer);
CREATE TABLE notes (id bigint PRIMARY KEY, reason text);
"""


@pytest.fixture
def team(tmp_path: Path) -> Settings:
    """A folder with our migrations and one of the team's own."""
    folder = tmp_path / "migrations"
    shutil.copytree(PRODUCT, folder)
    text = migration_text(OWN, BASE, rollback="DROP TABLE notes; DROP TABLE exit_reasons;")
    (folder / f"{OWN:03}_reasons.sql").write_text(text, encoding="utf-8")
    settings = load_settings(migrations=str(folder))
    renew_sum(settings)
    return settings


@pytest.fixture
def own(tmp_path: Path) -> Settings:
    """A folder that holds one small migration."""
    (tmp_path / "001_first.sql").write_text(migration_text(1, "CREATE TABLE a (x int);", rollback="DROP TABLE a;"))
    settings = load_settings(migrations=str(tmp_path))
    renew_sum(settings)
    return settings


@pytest.fixture
def commands(own: Settings) -> InThisProcess:
    """The command line for that folder; it has no server to reach."""
    return InThisProcess({"POSITION_LEDGER_MIGRATIONS": own.migrations})


@ON_18
def test_every_template_is_applied_and_rolled_back_as_it_is_written(
    team: Settings, database_url: str, connection: psycopg.Connection
) -> None:
    """S19, S60."""
    migrator = Migrator(database_url, team.migrations, projected=PROJECTED)
    migrator.up()
    before = read_catalogue(connection, "ledger")
    written = [
        path
        for template, fillings in FILLED.items()
        for name, filling in fillings
        for path in new_migration(team, name, template, filling)
    ]
    assert set(FILLED) == set(TEMPLATES) - {"empty"}
    assert [path.name[:3] for path in written] == [f"{number:03}" for number in range(OWN + 1, OWN + 1 + len(written))]
    line = InThisProcess({**on(database_url).settings, "POSITION_LEDGER_MIGRATIONS": team.migrations})
    plan = line("migrate", "plan", "--json").document
    errors = [finding["code"] for finding in plan["findings"] if finding["severity"] == "error"]
    assert errors == ["column-without-field"], "the SQL is complete; the field of positions is the caller's to declare"
    assert {file["rollback"]["state"] for file in plan["files"]} == {"proven"}
    migrator = Migrator(database_url, team.migrations, projected=PROJECTED)
    assert len(migrator.up().files) == len(written)
    assert migrator.differences() == []
    found = read_catalogue(connection, "ledger")
    changed = "\n".join(diff(before, found))
    for part in (
        "column notes is new",
        "column desk is new",
        "view current_margin_calls is new",
        "rank: type 'integer' became 'bigint'",
        "constraint positions_exit_reason_fkey is new",
        "index notes_by_reason_and_id is new",
        "index positions_by_account_id is new",
    ):
        assert part in changed
    assert found.tables["strategies"].columns["desk"].comment == "It's new"
    assert "NOT VALID" not in found.tables["notes"].constraints["notes_reason_fkey"].definition
    migrator.down(OWN + 1)
    assert read_catalogue(connection, "ledger") == before


def test_a_projected_table_has_what_the_engine_needs(team: Settings) -> None:
    """S1: the same columns, rules, guards and grants as the tables that ship."""
    [path] = new_migration(team, "margin_calls", "projected-table", FILLED["projected-table"][0][1])
    text = path.read_text(encoding="utf-8")
    shipped = (PRODUCT / "008_game_states.sql").read_text(encoding="utf-8")
    for line in shipped.replace("game_states", "margin_calls").replace("game_state_id", "margin_call_id").splitlines():
        if (
            line.startswith(("CREATE TRIGGER", "GRANT", "CREATE UNIQUE INDEX margin_calls_one_current"))
            or "WHEN (NOT" in line
        ):
            assert line in text
    assert "AS SELECT t.id" in " ".join(text.split())


def test_the_header_is_complete_and_says_who_and_when(team: Settings) -> None:
    """S16."""
    folder = Path(team.migrations)
    for key, value in (("user.name", "Ada  Example"), ("user.email", "ada@example.org")):
        subprocess.run(["git", "init", "-q", str(folder)], check=True, timeout=30)
        subprocess.run(["git", "-C", str(folder), "config", key, value], check=True, timeout=30)
    new_migration(team, "add_notes", "add-column", NOTES, summary="Free text,\nby the desk.")
    header = load_folder(folder)[-1].header
    assert header["Author"] == "Ada Example <ada@example.org>"
    assert header["Date"] == datetime.now(UTC).date().isoformat()
    assert header["Summary"] == "Free text, by the desk."
    assert header["Related"] == "the projection of positions"


@ON_18
def test_an_unwritten_migration_cannot_be_applied_by_mistake(own: Settings, database_url: str) -> None:
    new_migration(own, "backfill_desks")
    migrator = Migrator(database_url, own.migrations)
    with pytest.raises(
        MigrationError, match=r"002_backfill_desks.sql line \d+: .*the section -- forward .* not written"
    ):
        migrator.up()
    assert [row.state for row in migrator.status().rows] == ["applied", "pending"]


@pytest.mark.parametrize(
    ("template", "filling", "message"),
    [
        ("add-column", Filling(table="t", column=("c",)), r"the template add-column needs --type; give it"),
        ("change-type", Filling(), r"needs --table, --column, --type, --from; give it"),
        ("empty", Filling(table="t"), r"--table does not go with the template empty"),
        ("add-column", Filling(table="t", column=("c",), type=("text",), unique=True), r"--unique does not go with"),
        ("add-column", Filling(table="t", column=("c", "d"), type=("text",)), r"takes one --column, not 2"),
        ("add-column", Filling(table="x.t", column=("c",), type=("text",)), r"--table 'x.t' is not a plain lower-case"),
        ("add-column", Filling(table="t", column=("c",), type=("text; DROP",)), r"--type 'text; DROP' is not the name"),
        (
            "add-column",
            Filling(table="t", column=("c",), type=("text",), default="''; DROP TABLE t"),
            r"--default .* holds ';'; give values only",
        ),
        ("add-column", Filling(table="t", column=("c",), type=("text",), default="'open"), r"string .* never ends"),
        (
            "add-foreign-key",
            Filling(table="t", column=("c",), references="p"),
            r"--references 'p' is not table\(column\)",
        ),
        ("reference-data", Filling(table="t", column=("a",), row=("1, 2",)), r"holds 2 values for 1 columns"),
        ("reference-data", Filling(table="t", column=("a",), row=("1) , (2",)), r"is no list of values"),
        ("reference-data", Filling(table="t", column=("a", "b"), row=("1,",)), r"is no list of values"),
        ("reference-data", Filling(table="t", column=("a",), row=("1 -- or 2",)), r"holds '-- or 2'; give values only"),
        ("projected-table", Filling(table="t", key="k", column=("a", "b"), type=("text",)), r"one --type for each"),
        ("concurrent-index", Filling(table="t" * 60, column=("c" * 60,)), r"would have more than 63 characters"),
        ("nonsense", Filling(), r"there is no template 'nonsense'; there are empty, add-column"),
    ],
)
def test_what_cannot_be_filled_in_is_refused_and_nothing_is_written(
    own: Settings, template: str, filling: Filling, message: str
) -> None:
    folder = Path(own.migrations)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(MigrationError, match=message):
        new_migration(own, "something", template, filling)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("first", r"001_first.sql has that name already"),
        ("002_second", r"begins with a number; leave it out"),
        ("Second", r"is not lower-case words"),
        ("../second", r"is not lower-case words"),
        ("a" * 81, r"at most 80 characters"),
        ("", r"is not lower-case words"),
    ],
)
def test_a_bad_or_taken_name_is_refused(own: Settings, name: str, message: str) -> None:
    """S7."""
    with pytest.raises(MigrationError, match=message):
        new_migration(own, name)
    assert [path.name for path in sorted(Path(own.migrations).glob("*.sql"))] == ["001_first.sql"]


def test_a_folder_whose_sums_do_not_fit_is_no_base(own: Settings) -> None:
    first = Path(own.migrations) / "001_first.sql"
    first.write_text(first.read_text().replace("a test", "another"))
    with pytest.raises(MigrationError, match=r"does not fit 001_first.sql: .* `position-ledger migrate sum`"):
        new_migration(own, "second")


def test_the_folder_of_an_installed_package_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "site-packages" / "migrations"
    folder.mkdir(parents=True)
    with pytest.raises(MigrationError, match=r"belongs to the installed package .* `position-ledger init DIR`"):
        new_migration(load_settings(migrations=str(folder)), "mine")


def test_files_go_again_when_the_sums_cannot_be_written(own: Settings) -> None:
    sums = Path(own.migrations) / "migrations.sum"
    sums.unlink()
    sums.mkdir()
    with pytest.raises(IsADirectoryError):
        new_migration(own, "second")
    assert [path.name for path in sorted(Path(own.migrations).glob("*.sql"))] == ["001_first.sql"]


def test_without_git_the_author_is_the_user(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("LOGNAME", "the-desk")
    [path] = new_migration(own, "second")
    assert "-- Author: the-desk\n" in path.read_text(encoding="utf-8")


def test_an_empty_folder_gets_its_first_migration(tmp_path: Path) -> None:
    [path] = new_migration(load_settings(migrations=str(tmp_path)), "first")
    assert path == tmp_path / "001_first.sql"


def test_the_command_writes_and_says_where_and_what_next(own: Settings, commands: InThisProcess) -> None:
    folder = Path(own.migrations).resolve()
    answer = commands(
        "migrate", "new", "add_y", "--template", "add-column", "--table", "a", "--column", "y", "--type", "int"
    )
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines() == [
        f"written: {folder}/002_add_y.sql",
        "read it, then run position-ledger migrate plan",
    ]
    again = commands("migrate", "new", "add_y")
    assert (again.code, again.out) == (2, "")
    assert "002_add_y.sql has that name already" in again.err


def test_the_sums_are_written_again_after_an_edit_and_it_says_of_what(own: Settings, commands: InThisProcess) -> None:
    folder = Path(own.migrations)
    for name in ("second", "third"):
        new_migration(own, name)
    assert commands("migrate", "sum").out.endswith("migrations.sum fits its migrations; nothing changed\n")
    second = folder / "002_second.sql"
    second.write_text(second.read_text().replace("what it is for", "what it does"))
    (folder / "004_fourth.sql").write_text(migration_text(4, "SELECT 1;"))
    assert commands("migrate", "sum").out.splitlines()[:2] == ["changed: 002_second.sql", "added: 004_fourth.sql"]
    (folder / "004_fourth.sql").unlink()
    assert commands("migrate", "sum").out.splitlines()[:1] == ["removed: 004_fourth.sql"]
