"""The SQL of each template: forward, verify and rollback for names and types that have been checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from position_ledger.errors import MigrationError
from position_ledger.migration.template_filling import row_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from position_ledger.migration.template_filling import Filling

__all__ = ["Sections", "sections_of"]

NAME_BYTES_MAX: Final = 63
_UNWRITTEN: Final = "DO $$ BEGIN RAISE EXCEPTION 'the section -- {} of this migration is not written yet'; END $$;"


@dataclass(frozen=True, slots=True)
class Sections:
    """The sections of one file, and what its header says of them."""

    summary: str
    rollback_says: str
    forward: str
    verify: str
    rollback: str
    suffix: str = ""
    is_transactional: bool = True


def sections_of(template: str, filling: Filling) -> list[Sections]:
    """The files of a template in order. Raises MigrationError for a name that would be too long."""
    return _BY_TEMPLATE[template](filling)


def _empty(_filling: Filling) -> list[Sections]:
    """Nothing that could be applied by mistake."""
    return [
        Sections(
            "what it is for",
            "what is lost when it is rolled back",
            _UNWRITTEN.format("forward"),
            "-- expect: no rows\nSELECT 'the section -- verify of this migration is not written yet';",
            _UNWRITTEN.format("rollback"),
        )
    ]


def _add_column(filling: Filling) -> list[Sections]:
    table, column, kind = filling.table, filling.column[0], filling.type[0]
    rule = (" NOT NULL" if filling.not_null else "") + (f" DEFAULT {filling.default}" if filling.default else "")
    says = filling.comment or f"{column.replace('_', ' ').capitalize()}."
    verify = f"{_column(table, column, kind, not_null=filling.not_null)}\n{_commented(table, column)}"
    lost = "its values come from the log again" if filling.is_projected else "its values are lost"
    return [
        Sections(
            f"{table} gets the column {column}.",
            f"Drops the column; {lost}.",
            f"ALTER TABLE {table} ADD COLUMN {column} {kind}{rule};\n{_comment('COLUMN', f'{table}.{column}', says)}",
            verify,
            f"ALTER TABLE {table} DROP COLUMN {column};",
        )
    ]


def _change_type(filling: Filling) -> list[Sections]:
    """Views that show the column are dropped and made again: the server changes no type below a view."""
    table, column, kind, old = filling.table, filling.column[0], filling.type[0], filling.old_type
    names = ", ".join(view.name for view in filling.views)
    drop = f"DROP VIEW {names};\n" if names else ""
    again = "".join(f"\n{statement};" for view in filling.views for statement in view.statements)
    return [
        Sections(
            f"{table}.{column} is {kind}; it was {old}." + (f" Made again with it: {names}." if names else ""),
            f"Makes it {old} again; refused for values that do not fit.",
            f"{drop}ALTER TABLE {table} ALTER COLUMN {column} TYPE {kind} USING {column}::{kind};{again}",
            _typed(table, column, kind),
            f"{drop}ALTER TABLE {table} ALTER COLUMN {column} TYPE {old} USING {column}::{old};{again}",
        )
    ]


def _add_foreign_key(filling: Filling) -> list[Sections]:
    """Of a plain table in two files: added without looking at old rows, then validated while everyone goes on."""
    table, column = filling.table, filling.column[0]
    name = _short(f"{table}_{column}_fkey")
    adding = f"ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY ({column}) REFERENCES {filling.references}"
    dropping = f"ALTER TABLE {table} DROP CONSTRAINT {name};"
    found = (
        "SELECT {} FROM pg_constraint AS k\n"
        f" WHERE k.conrelid = to_regclass(current_schema() || '.{table}') AND k.conname = '{name}';"
    )
    summary = f"{table}.{column} refers to {filling.references}"
    if filling.is_projected:
        whole = found.format("k.contype = 'f' AND k.convalidated")
        return [Sections(f"{summary}.", "Drops the foreign key.", f"{adding};", whole, dropping)]
    return [
        Sections(
            f"{summary}: new and changed rows from now on; the next migration looks at the old ones.",
            "Drops the foreign key.",
            f"{adding} NOT VALID;",
            found.format("k.contype = 'f'"),
            dropping,
        ),
        Sections(
            f"{summary}: the rows that were there before, too.",
            "Drops the foreign key and adds it for new and changed rows only.",
            f"ALTER TABLE {table} VALIDATE CONSTRAINT {name};",
            found.format("k.convalidated"),
            f"{dropping}\n{adding} NOT VALID;",
            suffix="_validated",
        ),
    ]


def _concurrent_index(filling: Filling) -> list[Sections]:
    table, unique = filling.table, "UNIQUE " if filling.unique else ""
    name = _short(f"{table}_by_{'_and_'.join(filling.column)}")
    columns = ", ".join(filling.column)
    rule = " AND i.indisunique" if filling.unique else ""
    return [
        Sections(
            f"{table} is found by {columns}; built while everyone goes on.",
            "Drops the index.",
            f"CREATE {unique}INDEX CONCURRENTLY {name} ON {table} ({columns});",
            f"SELECT i.indisvalid AND i.indisready{rule} FROM pg_index AS i\n"
            f" WHERE i.indexrelid = to_regclass(current_schema() || '.{name}');",
            f"DROP INDEX CONCURRENTLY {name};",
            is_transactional=False,
        )
    ]


_SEEDED: Final = "SELECT r.{key} FROM {table} AS r WHERE r.{key} IN ({keys});"


def _reference_data(filling: Filling) -> list[Sections]:
    table, key = filling.table, filling.column[0]
    rows = ",\n".join(f"    ({row})" for row in filling.row)
    keys = ", ".join(row_key(row) for row in filling.row)
    count = len(filling.row)
    return [
        Sections(
            f"{table} gets {count} row{'' if count == 1 else 's'}.",
            "Deletes these rows; refused while others refer to them.",
            f"INSERT INTO {table} ({', '.join(filling.column)}) VALUES\n{rows};",
            f"-- expect: {count} row{'' if count == 1 else 's'}\n{_SEEDED.format(key=key, table=table, keys=keys)}",
            f"DELETE FROM {table} WHERE {key} IN ({keys});",
        )
    ]


def _projected_table(filling: Filling) -> list[Sections]:
    table, key = filling.table, filling.key
    rule = " NOT NULL" if filling.not_null else ""
    own = list(zip(filling.column, filling.type, strict=True))
    columns = [*_engine_columns(key), *((name, f"{kind}{rule}", _words(name)) for name, kind in own)]
    view = _short(f"current_{table}")
    return [
        Sections(
            f"Dual-key SCD Type 2: id is the number of the event that made the version, {key} stays the same on all "
            "versions.",
            "Drops table and view. No event is lost; the rows can be projected again.",
            _table_sql(table, key, columns, filling.comment)
            + _guards(table, key)
            + _view(view, table, key, filling.column),
            _table_checks(table, view, len(columns)),
            f"DROP VIEW {view};\nDROP TABLE {table};",
        )
    ]


def _engine_columns(key: str) -> list[tuple[str, str, str]]:
    return [
        (
            "id",
            "bigint NOT NULL",
            "Surrogate key: the number of the event that made this version; the same after every rebuild.",
        ),
        (key, "text NOT NULL", "Business key: the same on all versions."),
        ("row_current_ind", "boolean NOT NULL", f"True on exactly one version of each {key}."),
        (
            "row_effective_date",
            "timestamptz NOT NULL",
            "When the ledger learned this version (recorded time); start of its interval, included.",
        ),
        (
            "row_expiration_date",
            "timestamptz",
            "Start of the next version; null while current. The end is not included.",
        ),
        ("version", "integer NOT NULL", f"1, 2, 3 … in each {key}."),
        ("effective_at", "timestamptz NOT NULL", "When the event of this version happened."),
    ]


def _table_sql(table: str, key: str, columns: Sequence[tuple[str, str, str]], comment: str) -> str:
    width = max(len(name) for name, _, _ in columns)
    rules = (
        f"CONSTRAINT {_short(f'{table}_pkey')} PRIMARY KEY (id)",
        f"CONSTRAINT {_short(f'{table}_one_row_a_version')} UNIQUE ({key}, version)",
        f"CONSTRAINT {_short(f'{table}_current_has_no_end')} CHECK (row_current_ind = (row_expiration_date IS NULL))",
        f"CONSTRAINT {_short(f'{table}_interval_not_empty')} CHECK (row_expiration_date > row_effective_date)",
        f"CONSTRAINT {_short(f'{table}_version_counts_from_1')} CHECK (version >= 1)",
    )
    body = ",\n".join(
        [*(f"    {name:<{width}} {kind}" for name, kind, _ in columns), *(f"    {rule}" for rule in rules)]
    )
    comments = [_comment("TABLE", table, comment or f"{_words(table)[:-1]}; a row for each version.")]
    comments += [_comment("COLUMN", f"{table}.{name}", says) for name, _, says in columns]
    return (
        f"CREATE TABLE {table} (\n{body}\n);\n"
        f"CREATE UNIQUE INDEX {_short(f'{table}_one_current_row')} ON {table} ({key}) WHERE row_current_ind;\n"
        f"CREATE INDEX {_short(f'{table}_known_at')} ON {table} ({key}, row_effective_date);\n\n"
        + "\n".join(comments)
        + "\n\n"
    )


def _guards(table: str, key: str) -> str:
    """The triggers and grants of every projected table: history never changes, the projector may only add and expire."""
    return f"""\
CREATE TRIGGER history_is_kept BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION refuse_history_change();
CREATE TRIGGER history_is_kept_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT
    EXECUTE FUNCTION refuse_history_change();
CREATE TRIGGER history_is_kept_update BEFORE UPDATE ON {table} FOR EACH ROW
    WHEN (NOT OLD.row_current_ind OR NEW.row_current_ind OR OLD.id <> NEW.id OR OLD.{key} <> NEW.{key}
          OR OLD.row_effective_date <> NEW.row_effective_date OR OLD.version <> NEW.version)
    EXECUTE FUNCTION refuse_history_change();

GRANT SELECT ON {table} TO position_ledger_reader, position_ledger_projector;
GRANT INSERT ON {table} TO position_ledger_projector;
GRANT UPDATE (row_current_ind, row_expiration_date) ON {table} TO position_ledger_projector;

"""


def _view(view: str, table: str, key: str, columns: Sequence[str]) -> str:
    names = ", ".join(f"t.{name}" for name in ("id", key, "row_effective_date", "version", "effective_at", *columns))
    return (
        f"CREATE VIEW {view} AS\nSELECT {names}\n  FROM {table} AS t WHERE t.row_current_ind;\n"
        f"{_comment('VIEW', view, f'The current version of every row of {table}.')}\n"
        f"GRANT SELECT ON {view} TO position_ledger_reader, position_ledger_projector;"
    )


def _table_checks(table: str, view: str, columns: int) -> str:
    place = f"to_regclass(current_schema() || '.{table}')"
    return f"""\
SELECT count(*) = {columns} FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = '{table}';
SELECT i.indisunique AND i.indisvalid AND pg_get_expr(i.indpred, i.indrelid) = 'row_current_ind' FROM pg_index AS i
 WHERE i.indexrelid = to_regclass(current_schema() || '.{_short(f"{table}_one_current_row")}');
-- expect: no rows
SELECT a.attname FROM pg_attribute AS a WHERE a.attrelid = {place} AND a.attnum > 0
   AND NOT a.attisdropped AND col_description(a.attrelid, a.attnum) IS NULL;
-- expect: 3 rows
SELECT g.tgname FROM pg_trigger AS g WHERE g.tgrelid = {place} AND NOT g.tgisinternal;
SELECT to_regclass(current_schema() || '.{view}') IS NOT NULL;"""


def _column(table: str, column: str, kind: str, *, not_null: bool) -> str:
    return _attribute(table, column, f"a.atttypid = '{kind}'::regtype AND {'' if not_null else 'NOT '}a.attnotnull")


def _typed(table: str, column: str, kind: str) -> str:
    return _attribute(table, column, f"a.atttypid = '{kind}'::regtype")


def _commented(table: str, column: str) -> str:
    return _attribute(table, column, "col_description(a.attrelid, a.attnum) IS NOT NULL")


def _attribute(table: str, column: str, holds: str) -> str:
    return (
        f"SELECT {holds} FROM pg_attribute AS a\n"
        f" WHERE a.attrelid = to_regclass(current_schema() || '.{table}') AND a.attname = '{column}' AND NOT a.attisdropped;"
    )


def _comment(kind: str, name: str, says: str) -> str:
    quoted = " ".join(says.split()).replace("'", "''")
    return f"COMMENT ON {kind} {name} IS '{quoted}';"


def _words(name: str) -> str:
    return f"{name.replace('_', ' ').capitalize()}."


def _short(name: str) -> str:
    """The server would cut a longer name, and then the verification would look for another."""
    if len(name) > NAME_BYTES_MAX:
        raise MigrationError(
            f"the name {name!r} would have more than {NAME_BYTES_MAX} characters; choose shorter names"
        )
    return name


_BY_TEMPLATE: Final[dict[str, Callable[[Filling], list[Sections]]]] = {
    "empty": _empty,
    "add-column": _add_column,
    "change-type": _change_type,
    "add-foreign-key": _add_foreign_key,
    "projected-table": _projected_table,
    "concurrent-index": _concurrent_index,
    "reference-data": _reference_data,
}
