"""What hangs on a live table and cannot be moved to another one: named before a swap, with what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from position_ledger.migration.attached import Attached
from position_ledger.migration.catalogue import Catalogue, Table


def blockers(attached: Attached, before: Catalogue) -> list[str]:
    """What hangs on the live table and cannot be moved to another one, each in words with the remedy."""
    made = before.tables.get(attached.live.name, attached.live)
    words = [
        f"materialized view {v.schema}.{v.name} (drop it, and create it again after the swap)"
        for v in attached.views
        if v.materialized
    ]
    words += [
        f"function {f.schema}.{f.signature} is bound to its {f.reason} (drop it for the swap)"
        for f in attached.functions
    ]
    words += [f"rule {r.name} on {r.schema}.{r.relation} (drop it for the swap)" for r in attached.rules]
    words += [
        f"column {c.schema}.{c.relation}.{c.column} has its row type (drop it for the swap)"
        for c in attached.row_type_columns
    ]
    words += [f"sequence {name} is owned by it (ALTER SEQUENCE … OWNED BY NONE)" for name in attached.owned_sequences]
    words += [
        f"foreign key {key.name} of the partitioned table {key.schema}.{key.table} (drop it for the swap: before "
        "PostgreSQL 18 it cannot be put back without looking at every row)"
        for key in attached.foreign_keys
        if key.is_fixed
    ]
    words += [f"index {name} is not in the migrations (add it by a migration)" for name in attached.extra_indexes]
    words += [
        f"constraint {name} is not in the migrations (add it by a migration)" for name in attached.extra_constraints
    ]
    words += [
        f"statistics {name} are not in the migrations (add them by a migration)"
        for name in attached.live.statistics
        if name not in made.statistics
    ]
    words += [
        f"it has {feature}, which is not in the migrations ({_remedy(feature)})"
        for feature in attached.live.unsupported
        if feature not in made.unsupported and not feature.startswith(("replica identity", "rule "))
    ]
    return words + list(_of_columns(attached.live, made)) + list(attached.others)


def _of_columns(live: Table, made: Table) -> Iterator[str]:
    """What somebody has made of a column and a table from the migrations would not have."""
    for column in live.columns.values():
        known = made.columns.get(column.name)
        if known is None:
            continue
        if column.default != known.default and column.default is not None:
            yield f"column {column.name} has the default {column.default}, which is not in the migrations (add it by one)"
        if column.not_null and not known.not_null:
            yield f"column {column.name} is NOT NULL, which is not in the migrations (add it by one)"


REMEDIES = {
    "row level security": "drop its policies and switch it off for the swap, and make it again after it",
    "inheritance": "ALTER TABLE … NO INHERIT for the swap, and INHERIT after it",
    "partitioning": "only a plain table can be rebuilt",
    "a tablespace of its own": "ALTER TABLE … SET TABLESPACE pg_default for the swap, and back after it",
    "not being logged": "ALTER TABLE … SET LOGGED",
    "a composite type as its definition": "ALTER TABLE … NOT OF",
}


def _remedy(feature: str) -> str:
    return REMEDIES.get(feature, "take that away for the swap, and make it again after it")
