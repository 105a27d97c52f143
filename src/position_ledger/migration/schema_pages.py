"""The reference pages of a schema, from its catalogue and the headers of its migrations: one a table, and their list.

Pure: the same schema gives the same text on every supported server version, so that a page can be compared.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from position_ledger.migration.catalogue import Catalogue, Column, Table, View
    from position_ledger.migration.files import MigrationFile

__all__ = ["INDEX", "MARK", "SchemaFacts", "pages", "touched_by"]

INDEX: Final = "README.md"
MARK: Final = "<!-- Written by `position-ledger docs schema` from migrations and column comments; do not edit. -->"
"""First line of every page: what has it may be overwritten and, without its table, removed."""
ENGINE_COLUMNS: Final = (
    "row_current_ind", "row_effective_date", "row_expiration_date", "version", "effective_at",
)  # fmt: skip
AS_KNOWN_AT: Final = "'2026-01-31T12:00:00Z'"
LINE_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class SchemaFacts:
    """What the pages are made from. ``projected`` maps tables to their business key, ``touched`` names to files."""

    catalogue: Catalogue
    projected: Mapping[str, str]
    touched: Mapping[str, Sequence[MigrationFile]]


def touched_by(files: Sequence[MigrationFile], catalogues: Sequence[Catalogue]) -> dict[str, list[MigrationFile]]:
    """The files that changed each table or view, in order; ``catalogues[n]`` is the schema after n files."""
    touched: dict[str, list[MigrationFile]] = {}
    for file, before, after in zip(files, catalogues, catalogues[1:], strict=False):
        old, new = {**before.tables, **before.views}, {**after.tables, **after.views}
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                touched.setdefault(name, []).append(file)
    return touched


def pages(facts: SchemaFacts) -> dict[str, str]:
    """Every page by its file name."""
    made = {f"{name}.md": _page(facts, table) for name, table in facts.catalogue.tables.items()}
    return {INDEX: _index(facts), **made}


# the list


def _index(facts: SchemaFacts) -> str:
    tables = facts.catalogue.tables
    projected = [name for name in sorted(tables) if name in facts.projected]
    plain = [name for name in sorted(tables) if name not in facts.projected]
    lines = [
        MARK,
        "",
        "# The schema",
        "",
        "## Tables with versions (dual-key SCD Type 2)",
        "",
        (
            "Their rows come from the event log only: a worker or the append itself projects them, and a rebuild makes them "
            "again. Each has a surrogate key `id`, a business key, and at most one current row of each business key."
        ),
        "",
        *_grid(
            ("table", "business key", "migrations", "what it holds"),
            [(_link(n), f"`{facts.projected[n]}`", _numbers(facts, n), _text(tables[n].comment)) for n in projected],
        ),
        "",
        "## Plain tables",
        "",
        *_grid(
            ("table", "migrations", "what it holds"),
            [(_link(n), _numbers(facts, n), _text(tables[n].comment)) for n in plain],
        ),
        "",
        "## Views",
        "",
        *_grid(
            ("view", "reads", "migrations", "what it shows", "columns"),
            [_of_view(facts, view) for _, view in sorted(facts.catalogue.views.items())],
        ),
        "",
        (
            "The runner of migrations keeps `schema_migrations` and `schema_migration_history` beside them: what is applied, "
            "and who did what when."
        ),
    ]
    return "\n".join(lines) + "\n"


def _of_view(facts: SchemaFacts, view: View) -> tuple[str, ...]:
    reads = ", ".join(_link(name) if name in facts.catalogue.tables else f"`{name}`" for name in view.reads)
    return (
        f"`{view.name}`",
        reads,
        _numbers(facts, view.name),
        _text(view.comment),
        ", ".join(f"`{name}`" for name in view.columns),
    )


def _numbers(facts: SchemaFacts, name: str) -> str:
    return ", ".join(f"{file.number:03}" for file in facts.touched.get(name, ()))


# one table


def _page(facts: SchemaFacts, table: Table) -> str:
    key = facts.projected.get(table.name)
    sections = [
        [MARK, "", f"# {table.name}", "", _text(table.comment) or "No comment says what it is for."],
        _migrations(facts, table),
        _dual_key(table, key) if key else [],
        _columns(table),
        _behaviour(key) if key else [],
        _queries(table, key) if key else [],
        _constraints(table),
        _indexes(table),
        _foreign_keys(facts.catalogue, table),
        _triggers(table),
        _views(facts.catalogue, table),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _migrations(facts: SchemaFacts, table: Table) -> list[str]:
    rows = [
        (f"{file.number:03}", file.header["Date"], _text(file.header["Description"]))
        for file in facts.touched.get(table.name, ())
    ]
    return ["## Migrations", "", *_grid(("number", "date", "what it did"), rows)]


def _dual_key(table: Table, key: str) -> list[str]:
    unique = [
        index.name
        for index in table.indexes.values()
        if re.search(rf"^CREATE UNIQUE INDEX .*\({re.escape(key)}\) WHERE row_current_ind$", index.definition)
    ]
    guard = f"`{unique[0]}` refuses a second one" if unique else "no index of the table refuses a second one"
    return [
        "## Two keys",
        "",
        (
            "- **Surrogate key `id`**: one version. It is the number of the event that made the version, so it is the same "
            "after every rebuild, and what other rows refer to."
        ),
        (
            f"- **Business key `{key}`**: the thing itself, the same on all its versions. At most one of them is current: "
            f"{guard}."
        ),
    ]


def _columns(table: Table) -> list[str]:
    rows = [
        (f"`{one.name}`", one.type, "no" if one.not_null else "yes", _default(one), _text(one.comment))
        for one in table.columns.values()
    ]
    return ["## Columns", "", *_grid(("column", "type", "null", "default", "what it is"), rows)]


def _default(column: Column) -> str:
    if column.identity:
        return "identity"
    if column.generated:
        return f"generated: `{column.default}`"
    return f"`{column.default}`" if column.default is not None else ""


def _behaviour(key: str) -> list[str]:
    return [
        "## How versions follow each other (SCD Type 2)",
        "",
        (
            f"- An event that changes what `{key}` names ends its current version and begins the next one, in one transaction: "
            "`row_expiration_date` of the old is `row_effective_date` of the new, and `row_current_ind` goes over."
        ),
        (
            "- Intervals are half-open, `[row_effective_date, row_expiration_date)`, never empty, without gap or overlap; a "
            "current version has no end (null). `version` counts 1, 2, 3 …"
        ),
        "- `row_effective_date` is when the ledger learned it; `effective_at` is when it happened.",
        "- A version is never changed but for its end, and never deleted.",
    ]


def _queries(table: Table, key: str) -> list[str]:
    short = ", ".join(("id", key, *(name for name in ENGINE_COLUMNS if name != "row_current_ind")))
    current = _selected([name for name in table.columns if name not in {"row_current_ind", "row_expiration_date"}])
    return [
        "## Three queries",
        "",
        "What is so now:",
        "",
        *_sql(*current, f"  FROM {table.name}", " WHERE row_current_ind", " ORDER BY id;"),
        "",
        f"All versions of one `{key}`:",
        "",
        *_sql(*_selected([short]), f"  FROM {table.name}", f" WHERE {key} = '…'", " ORDER BY version;"),
        "",
        "History: what the ledger knew at a time, one row of each key:",
        "",
        *_sql(
            *_selected([short]),
            f"  FROM {table.name}",
            f" WHERE row_effective_date <= {AS_KNOWN_AT}",
            f"   AND (row_expiration_date > {AS_KNOWN_AT} OR row_expiration_date IS NULL)",
            " ORDER BY id;",
        ),
    ]


def _selected(names: Iterable[str]) -> list[str]:
    first, *rest = wrap(", ".join(names), LINE_MAX - 7, break_long_words=False)
    return [f"SELECT {first}", *(f"       {line}" for line in rest)]


def _sql(*lines: str) -> list[str]:
    return ["```sql", *lines, "```"]


_KINDS: Final = {"c": "check", "p": "primary key", "u": "unique", "x": "exclusion", "n": "not null"}


def _constraints(table: Table) -> list[str]:
    rows = [
        (f"`{one.name}`", _KINDS.get(one.kind, one.kind), f"`{_flat(one.definition)}`")
        for one in sorted(table.constraints.values(), key=lambda one: one.name)
        if one.kind not in {"f", "t"}
    ]
    return ["## Constraints", "", *_grid(("name", "kind", "rule"), rows)] if rows else []


def _indexes(table: Table) -> list[str]:
    rows = [
        (f"`{one.name}`", f"`{_flat(one.definition)}`", _text(one.comment))
        for one in sorted(table.indexes.values(), key=lambda one: one.name)
        if not one.constraint
    ]
    return ["## Indexes", "", *_grid(("name", "definition", "what for"), rows)] if rows else []


def _foreign_keys(catalogue: Catalogue, table: Table) -> list[str]:
    own = [(f"`{one.name}`", f"`{_flat(one.definition)}`") for one in table.constraints.values() if one.kind == "f"]
    incoming = [
        (f"`{one.name}` of {_link(other.name)}", f"`{_flat(one.definition)}`")
        for _, other in sorted(catalogue.tables.items())
        for one in other.constraints.values()
        if one.kind == "f" and other.name != table.name and _references(one.definition, table.name)
    ]
    lines = [*_titled("## Foreign keys", own), *([""] if own and incoming else [])]
    return lines + _titled("## Foreign keys that refer to it", incoming)


def _titled(title: str, rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [title, "", *_grid(("name", "definition"), rows)] if rows else []


def _references(definition: str, table: str) -> bool:
    return re.search(rf'REFERENCES "?{re.escape(table)}"?\(', definition) is not None


def _triggers(table: Table) -> list[str]:
    rows = [(f"`{one.name}`", f"`{_flat(one.definition)}`") for _, one in sorted(table.triggers.items())]
    return ["## Triggers", "", *_grid(("name", "definition"), rows)] if rows else []


def _views(catalogue: Catalogue, table: Table) -> list[str]:
    rows = [
        (f"`{view.name}`", _text(view.comment))
        for _, view in sorted(catalogue.views.items())
        if table.name in view.reads
    ]
    return ["## Views that read it", "", *_grid(("view", "what it shows"), rows)] if rows else []


# Markdown


def _grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _link(name: str) -> str:
    return f"[{name}]({name}.md)"


def _flat(text: str) -> str:
    return " ".join(text.split())


def _text(text: str | None) -> str:
    """A comment as Markdown: < is no tag, * and _ no emphasis."""
    return re.sub(r"([<*_])", r"\\\1", _flat(text or ""))
