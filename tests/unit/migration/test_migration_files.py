"""Migration files are read exactly, or refused in one sentence that names the file and what is wrong (S15-S18)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from position_ledger.errors import MigrationError
from position_ledger.migration import check_sum, load_folder, parse_file, sum_text, write_sum
from position_ledger.migration.files import ordered

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
-- Migration: 001
-- Description: strategies
-- Date: 2026-01-31
-- Author: a person
-- Related: S2
-- Summary: the table of strategies,
--   which positions refer to
-- Rollback: drops it

-- forward
CREATE TABLE strategies (id bigint PRIMARY KEY);
COMMENT ON TABLE strategies IS '
-- rollback
';

-- verify
SELECT to_regclass('ledger.strategies') IS NOT NULL;

-- rollback
DROP TABLE strategies;
"""
INDEX = (
    GOOD.replace("-- Rollback: drops it", "-- Rollback: drops it\n-- Transactional: no")
    .replace(
        GOOD[GOOD.index("CREATE") : GOOD.index("\n-- verify")],
        'CREATE UNIQUE INDEX CONCURRENTLY "By Name" ON t (name);\n',
    )
    .replace("DROP TABLE strategies", 'DROP INDEX CONCURRENTLY IF EXISTS "By Name"')
)


def test_a_complete_file_is_read() -> None:
    file = parse_file("001_strategies.sql", GOOD.encode())
    assert (file.number, file.name, file.is_transactional) == (1, "001_strategies", True)
    assert file.header["Summary"] == "the table of strategies, which positions refer to"
    assert [statement.line for statement in file.forward.statements] == [11, 12]
    assert file.forward.statements[1].text.endswith("IS '\n-- rollback\n'")
    assert [statement.text for statement in file.rollback.statements] == ["DROP TABLE strategies"]


def test_a_file_with_a_concurrent_index_is_read() -> None:
    file = parse_file("001_index.sql", INDEX.encode())
    assert file.index is not None
    assert (file.is_transactional, file.index.name) == (False, "By Name")


@pytest.mark.parametrize("key", ["Migration", "Description", "Date", "Author", "Related", "Summary", "Rollback"])
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_each_header_key_is_needed(key: str, how: str) -> None:
    """S16."""
    lines = [line for line in GOOD.splitlines(keepends=True) if not line.startswith("--   which")]
    text = "".join(
        ("" if how == "absent" else f"-- {key}:\n") if line.startswith(f"-- {key}:") else line for line in lines
    )
    with pytest.raises(MigrationError, match=rf"^001_x.sql: the header line '-- {key}:' is missing or empty; write it"):
        parse_file("001_x.sql", text.encode())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("-- Migration: 001", "-- Migration: 002", "the header says '-- Migration: 002' but the file name says 001"),
        ("-- Date: 2026-01-31", "-- Date: 31/01/2026", "is not a date like 2026-01-31"),
        ("-- Author: a person", "-- Author: a person\n-- Author: b", "'-- Author:' stands twice"),
        ("-- Author: a person", "-- Author: a person\nSELECT 1;", "line 5: SQL before '-- forward'"),
        ("-- Rollback: drops it", "-- Rollback: drops it\n-- Transactional: maybe", "is neither yes nor no"),
        ("-- forward\n", "", "line 15: '-- verify' is out of place"),
        ("-- verify\n", "", "line 18: '-- rollback' is out of place"),
        ("\n-- rollback\nDROP", "\nDROP", "the section '-- rollback' is missing"),
        ("-- verify\n", "-- forward\n-- verify\n", "line 16: a second '-- forward' section"),
        ("SELECT to_regclass('ledger.strategies') IS NOT NULL;", "", "section '-- verify' has no statement"),
        ("SELECT to_regclass(", "UPDATE x SET y = (", "line 17: .* is no SELECT"),
        (
            "DROP TABLE strategies;",
            "-- nothing",
            "section '-- rollback' has no statement; write it, or say in the header",
        ),
        ("-- Rollback: drops it", "-- Rollback: none, as agreed", "says '-- Rollback: none' but the section"),
        ("COMMENT ON", "COMMIT; COMMENT ON", "line 12: 'COMMIT' controls the transaction"),
        ("COMMENT ON", "begin; COMMENT ON", "line 12: 'begin' controls the transaction"),
        ("COMMENT ON", "SET LOCAL search_path = public; COMMENT ON", "line 12: .* change another schema"),
        ("COMMENT ON", "SET SCHEMA 'public'; COMMENT ON", "line 12: .* change another schema"),
        ("COMMENT ON", "SET LOCAL search_path = ledger; COMMENT ON", "searches the schema of the ledger already"),
        ("COMMENT ON", 'SET "search_path" = public; COMMENT ON', "line 12: .* change another schema"),
        ("COMMENT ON", "RESET search_path; COMMENT ON", "line 12: 'RESET search_path' sets search_path"),
        ("COMMENT ON", "RESET ALL; COMMENT ON", "line 12: 'RESET ALL' sets search_path"),
        ("COMMENT ON", "DISCARD ALL; COMMENT ON", "line 12: 'DISCARD ALL' sets search_path"),
        (
            "COMMENT ON",
            "SELECT pg_catalog.set_config('search_path', 'public', true); COMMENT ON",
            "line 12: .* sets search_path",
        ),
        ("COMMENT ON", "COPY t FROM STDIN; COMMENT ON", "line 12: COPY cannot read from"),
        ("COMMENT ON", "\\i other.sql\nCOMMENT ON", r"line 12: '\\i other\.sql' is a psql command"),
        ("COMMENT ON", "SELECT 'never; COMMENT ON", "line 17: the string that begins here never ends"),
    ],
)
def test_a_bad_file_is_refused_naming_what_and_where(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(MigrationError, match=rf"^001_x.sql: .*{message}"):
        parse_file("001_x.sql", GOOD.replace(old, new).encode())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("CREATE UNIQUE INDEX CONCURRENTLY", "CREATE UNIQUE INDEX", "holds one CREATE INDEX CONCURRENTLY"),
        ('CONCURRENTLY "By Name" ON', 'CONCURRENTLY IF NOT EXISTS "By Name" ON', "IF NOT EXISTS would take"),
        ('CONCURRENTLY "By Name" ON', "CONCURRENTLY ON", "needs a name of its own"),
        ("(name);", "(name); SELECT 1;", "exactly one statement in '-- forward', not 2"),
        ("DROP INDEX CONCURRENTLY", "DROP INDEX", "with one DROP INDEX CONCURRENTLY, not"),
        ('EXISTS "By Name"', "EXISTS by_name", "drops another index than the 'By Name'"),
        ('EXISTS "By Name"', 'EXISTS ledger."By Name"', "name exactly one index, without a schema"),
        ('EXISTS "By Name"', 'EXISTS "By Name", other', "name exactly one index, without a schema"),
    ],
)
def test_a_file_outside_transactions_holds_one_index(old: str, new: str, message: str) -> None:
    assert old in INDEX
    with pytest.raises(MigrationError, match=rf"^001_x.sql: .*{message}"):
        parse_file("001_x.sql", INDEX.replace(old, new).encode())


DROPPED = INDEX.replace('CREATE UNIQUE INDEX CONCURRENTLY "By Name" ON t (name)', "FORWARD").replace(
    'DROP INDEX CONCURRENTLY IF EXISTS "By Name"', "BACK"
)


@pytest.mark.parametrize(
    ("forward", "back", "message"),
    [
        (
            "DROP INDEX CONCURRENTLY a",
            "DROP INDEX CONCURRENTLY a",
            "drops the index 'a' is the CREATE INDEX CONCURRENTLY",
        ),
        ("DROP INDEX CONCURRENTLY a", "CREATE INDEX CONCURRENTLY b ON t (n)", "builds another index than the 'a'"),
        ("DROP INDEX a", "CREATE INDEX a ON t (n)", "with one DROP INDEX CONCURRENTLY, not"),
        ("CREATE INDEX a ON t (n)", "DROP INDEX a", "write CREATE INDEX CONCURRENTLY, or leave out the header line"),
        ("REINDEX INDEX CONCURRENTLY a", "SELECT 1", "REINDEX changes no schema: run it by hand"),
        ("VACUUM t", "SELECT 1", "VACUUM changes no schema: run it by hand"),
        ("ALTER TYPE a ADD VALUE 'b'", "SELECT 1", "leave out the header line, .* the new value in a later file"),
        ("ALTER TABLE t DETACH PARTITION p CONCURRENTLY", "SELECT 1", "leave out CONCURRENTLY and the header line"),
        ("ALTER SYSTEM SET work_mem = '1MB'", "SELECT 1", "about the server, not the schema"),
        ("UPDATE t SET n = 1", "SELECT 1", "leave out the header line for anything else"),
    ],
)
def test_what_does_not_belong_outside_transactions_is_told_where_it_belongs(
    forward: str, back: str, message: str
) -> None:
    with pytest.raises(MigrationError, match=rf"^001_x.sql: .*{message}"):
        parse_file("001_x.sql", DROPPED.replace("FORWARD", forward).replace("BACK", back).encode())


@pytest.mark.parametrize("name", ["1_x.sql", "001.sql", "001_X.sql", "001-x.sql", "x_001.sql", "001_x .sql"])
def test_a_wrong_file_name_is_refused(name: str, tmp_path: Path) -> None:
    """S15: and never skipped."""
    (tmp_path / name).write_text(GOOD)
    with pytest.raises(MigrationError, match=r"NNN_descriptive_name.sql"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff\xfe", "byte 0 is not UTF-8"), (b"\xef\xbb\xbf-- x", "byte order mark"), (b"a\0", "null")],
)
def test_bytes_that_are_no_plain_text_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(MigrationError, match=rf"^001_x.sql: .*{message}"):
        parse_file("001_x.sql", content)


def test_line_ends_do_not_count_and_parts_have_their_own_checksums() -> None:
    unix = parse_file("001_x.sql", GOOD.encode())
    assert parse_file("001_x.sql", GOOD.replace("\n", "\r\n").encode()).checksums == unix.checksums
    for old, part in (
        ("a person", "header"),
        ("bigint", "forward"),
        ("ledger.", "verify"),
        ("DROP TABLE s", "rollback"),
    ):
        edited = parse_file("001_x.sql", GOOD.replace(old, old + " ").encode())
        assert edited.checksums.edited(unix.checksums) == (part,)
        assert edited.checksums.whole != unix.checksums.whole


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text(GOOD.replace("Migration: 001", f"Migration: {name[:3]}"))


def test_a_folder_is_read_in_order_beside_other_files(tmp_path: Path) -> None:
    write(tmp_path, "002_b.sql", "001_a.sql", "003_c.sql")
    (tmp_path / "README.md").write_text("hello")
    (tmp_path / "__init__.py").write_text("")
    assert [file.filename for file in load_folder(tmp_path)] == ["001_a.sql", "002_b.sql", "003_c.sql"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("001_a.sql", "002_b.sql", "002_c.sql"), "002_b.sql and 002_c.sql have the same number 002"),
        (("001_a.sql", "003_c.sql"), "number 002 is missing between 001_a.sql and 003_c.sql"),
        (("002_b.sql",), "number 001 is missing before 002_b.sql"),
    ],
)
def test_wrong_numbers_are_refused_naming_both_files(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    """S7."""
    write(tmp_path, *names)
    with pytest.raises(MigrationError, match=message):
        load_folder(tmp_path)


def test_a_list_out_of_order_is_refused() -> None:
    files = [
        parse_file(name, GOOD.replace("Migration: 001", f"Migration: {name[:3]}").encode())
        for name in ("002_b.sql", "001_a.sql")
    ]
    with pytest.raises(MigrationError, match=r"001_a.sql comes after 002_b.sql: out of order"):
        ordered(files)


def test_a_missing_or_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match=r"does not exist"):
        load_folder(tmp_path / "nowhere")
    with pytest.raises(MigrationError, match=r"holds no NNN_name.sql"):
        load_folder(tmp_path)


def test_the_sum_file_covers_every_file_and_those_before_it(tmp_path: Path) -> None:
    write(tmp_path, "001_a.sql", "002_b.sql")
    text = write_sum(tmp_path).read_text()
    files = load_folder(tmp_path)
    check_sum(files, text)
    check_sum(files, text.replace("\n", "\r\n"))
    (tmp_path / "001_a.sql").write_text(GOOD.replace("a person", "another"))
    with pytest.raises(MigrationError, match=r"does not fit 001_a.sql"):
        check_sum(load_folder(tmp_path), text)
    assert not set(sum_text(load_folder(tmp_path)).splitlines()[1:]) & set(text.splitlines()[1:])


def test_conflict_markers_in_the_sum_file_are_called_by_their_name(tmp_path: Path) -> None:
    write(tmp_path, "001_a.sql", "002_b.sql")
    text = write_sum(tmp_path).read_text()
    with pytest.raises(MigrationError, match=r"conflict markers of git.*migrate sum"):
        check_sum(load_folder(tmp_path), f"{text}<<<<<<< ours\n=======\n>>>>>>> theirs\n")


def test_two_branches_with_one_number_change_the_same_line(tmp_path: Path) -> None:
    """Each branch appends its own line 2 to the sum file: git cannot merge that silently."""
    branches = []
    for name in ("002_mine.sql", "002_theirs.sql"):
        folder = tmp_path / name
        folder.mkdir()
        write(folder, "001_a.sql", name)
        branches.append(sum_text(load_folder(folder)).splitlines())
    mine, theirs = branches
    assert mine[:2] == theirs[:2]
    assert mine[2] != theirs[2]


@pytest.mark.parametrize("missing", ["001_a.sql", "002_b.sql"])
def test_a_removed_file_does_not_fit_the_sums(tmp_path: Path, missing: str) -> None:
    write(tmp_path, "001_a.sql", "002_b.sql")
    files = load_folder(tmp_path)
    with pytest.raises(MigrationError, match=r"does not fit"):
        check_sum([file for file in files if file.filename != missing], sum_text(files))
