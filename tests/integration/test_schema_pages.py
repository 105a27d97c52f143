"""The reference pages of the schema: what is committed is what the migrations make, and their queries run."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from position_ledger import operations
from position_ledger.errors import ConfigurationError
from position_ledger.migration.schema_pages import INDEX, MARK
from position_ledger.settings import Settings
from position_ledger.setup import Reached
from tests.support.command_line import in_this_process
from tools import schema_pages as schema_pages_tool

if TYPE_CHECKING:
    from position_ledger.testing.databases import Template

COMMITTED = Path(__file__).parents[2] / "docs" / "reference" / "schema"
VERSIONED = ("account_balance", "edges", "game_states", "markets", "positions", "trades")


@pytest.fixture(scope="module")
def pages(shared_database: str) -> dict[str, str]:
    return operations.schema_pages(Settings(database_url=shared_database), Reached(shared_database, "", None))


def test_the_committed_pages_are_those_of_the_migrations(pages: dict[str, str]) -> None:
    """S50. On every supported version of the server; if this fails, run make docs and commit what it writes."""
    assert operations.compare_pages(pages, COMMITTED) == []


def test_every_table_and_column_says_what_it_is_for(pages: dict[str, str]) -> None:
    """S54. Given the comments in the database, then no table and no column is without one."""
    for name, page in pages.items():
        assert page.startswith(MARK)
        assert "No comment says" not in page
        assert not re.search(
            r"^\| `\w+` \|.*\|\s*\|$", page.partition("## Columns")[2].partition("\n## ")[0], re.MULTILINE
        ), name


def test_a_page_has_what_a_reader_looks_for(pages: dict[str, str]) -> None:
    """S50. Purpose, migrations and dates, keys, columns, behaviour, three queries, and what hangs on the table."""
    positions = pages["positions.md"]

    for title in (
        "## Migrations", "## Two keys", "## Columns", "## How versions follow", "## Three queries", "## Constraints",
        "## Indexes", "## Triggers", "## Views that read it",
    ):  # fmt: skip
        assert title in positions
    numbers = re.findall(r"^\| (\d{3}) \| (\S+) \|", positions, re.MULTILINE)
    assert [number for number, _ in numbers][:2] == ["003", "011"]
    assert all(date.fromisoformat(day) for _, day in numbers)
    assert "`positions_one_current_row` refuses a second one" in positions
    assert "| `unrealized_pnl` | numeric(38,18) | yes |" in positions
    assert "## Foreign keys that refer to it" in pages["projection_generations.md"]
    assert "## Two keys" not in pages["strategies.md"]


def test_the_list_names_every_table_and_who_has_versions(pages: dict[str, str]) -> None:
    """S51."""
    versioned, plain = pages[INDEX].split("## Plain tables")

    assert re.findall(r"^\| \[(\w+)\]", versioned, re.MULTILINE) == list(VERSIONED)
    assert {f"{name}.md" for name in re.findall(r"^\| \[(\w+)\]", pages[INDEX], re.MULTILINE)} == pages.keys() - {INDEX}
    assert "`open_positions`" in plain


def test_the_queries_of_the_pages_run(pages: dict[str, str], shared_database: str) -> None:
    """S50. Given the three queries of each table with versions, when run as they stand, then each is one."""
    with psycopg.connect(shared_database) as connection:
        connection.execute("SET search_path = ledger")
        for name in VERSIONED:
            queries = re.findall(r"```sql\n(.*?)```", pages[f"{name}.md"], re.DOTALL)
            assert len(queries) == 3
            for query in queries:
                connection.execute(query.encode())


def test_pages_are_written_compared_and_taken_away(ledger_template: Template, tmp_path: Path) -> None:
    """Given pages that differ, are missing, too many or somebody's own, then each is named, and writing repairs."""
    with ledger_template.clone() as url:
        run = in_this_process(url)
        out = ["--out", str(tmp_path / "pages")]

        assert run("docs", "schema", *out).out.count("wrote ") == len(list((tmp_path / "pages").iterdir()))
        assert run("docs", "schema", "--check", *out).code == 0
        edges, trades, gone = (tmp_path / "pages" / name for name in ("edges.md", "trades.md", "gone.md"))
        edges.write_text(edges.read_text(encoding="utf-8").replace("# edges", "# hedges"), encoding="utf-8")
        trades.unlink()
        gone.write_text(f"{MARK}\n", encoding="utf-8")
        (tmp_path / "pages" / "notes.md").write_text("by hand\n", encoding="utf-8")
        answer = run("docs", "schema", "--check", *out)
        document = run("docs", "schema", *out, "--json").document

    assert answer.code == 1
    assert f"{edges}:3 differs: it should be '# edges'" in answer.out
    assert f"{trades} is missing" in answer.out
    assert f"{gone} is of a table that no migration makes" in answer.out
    assert document == {"changed": [str(edges), str(trades)], "removed": [str(gone)]}
    assert (tmp_path / "pages" / "notes.md").exists()


def test_make_docs_writes_them_with_a_server_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert schema_pages_tool.main() == 0
    written = tmp_path / schema_pages_tool.FOLDER
    assert {page.name: page.read_bytes() for page in written.iterdir()} == {
        page.name: page.read_bytes() for page in COMMITTED.iterdir()
    }


def test_a_page_that_somebody_wrote_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="was not written by this command and would be lost"):
        operations.write_pages({"README.md": f"{MARK}\n"}, tmp_path)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "mine\n"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be written to .*name another folder"):
        operations.write_pages({"README.md": f"{MARK}\n"}, tmp_path / "file" / "below")
