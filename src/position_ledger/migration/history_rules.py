"""Whether a migration leaves history as it is: nobody may change, hide or lose what is written, and only the ledger writes.

Pure: two catalogues are compared, and what each statement wrote.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from position_ledger.errors import MigrationError
from position_ledger.migration.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from position_ledger.migration.catalogue import Catalogue, Grant, Index, Table, Trigger
    from position_ledger.migration.classify import Effect
    from position_ledger.migration.trace import TracedFile, TracedStatement

__all__ = ["LOG_TABLES", "history_findings", "refuse_lost_history"]

_WRITES: Final = frozenset({"INSERT", "UPDATE", "DELETE", "TRUNCATE"})
LOG_TABLES: Final = ("events", "append_keys")
_KEEPERS: Final = ("refuse_change", "refuse_history_change", "refuse_step_back")
"""Functions of triggers that keep what is written as it was written."""
_MIGHTY: Final = ("superuser", "bypassrls")
_BEFORE_ROWS: Final = re.compile(r" BEFORE .* FOR EACH ROW ")
_CORRECTED_BY: Final = "BustTrade, CorrectTrade, AdjustFee, AdjustCash: see docs/reference/domain-rules.md"


def history_findings(traced: TracedFile, projected: frozenset[str]) -> Iterator[Finding]:
    """Findings about a file that has not failed."""
    kept = {*LOG_TABLES, *projected, *_with_keepers(traced.before)} & traced.before.tables.keys()
    yield from _log_written(traced)
    yield from _log_gone(traced)
    for name in sorted(kept & traced.after.tables.keys()):
        yield from _unprotected(traced, name)
        yield from _rewritten(traced, name)
        yield from _hidden(traced, name)
        yield from _of_another(traced, name)
    yield from _keepers_changed(traced)
    yield from _more_writers(traced, projected)
    yield from _more_owners(traced)
    yield from _definers(traced)
    yield from _many_current_rows(traced, projected)


def refuse_lost_history(effect: Effect) -> None:
    """What no plan, rollback or later migration could bring back is not even begun; the rest is for the plan to say.

    Raises:
        MigrationError: the file writes rows of the log, or takes it away.
    """
    for name in sorted(effect.before.tables.keys() & LOG_TABLES):
        if name in effect.written:
            msg = f"{effect.file.filename} {_written(name)}: {_CORRECTED_BY}; nothing was changed"
            raise MigrationError(msg)
        if name not in effect.after.tables:
            msg = f"{effect.file.filename} is refused: {_gone(name)}; nothing was changed"
            raise MigrationError(msg)


def _written(name: str) -> str:
    return f"writes {name}, the log itself: what happened cannot be changed, only followed by an event that corrects it"


def _gone(name: str) -> str:
    return f"{name} goes: it is the log, of which everything else is made"


def _with_keepers(catalogue: Catalogue) -> Iterator[str]:
    return (name for name, table in catalogue.tables.items() if any(_is_keeper(one) for one in table.triggers.values()))


def _is_keeper(trigger: Trigger) -> bool:
    return any(f"{function}(" in trigger.definition for function in _KEEPERS)


def _finding(traced: TracedFile, mark: str, code: str, cause: str, form: str = "") -> Finding:
    """An error at the last statement whose differences say the mark."""
    for one in reversed(traced.statements):
        if any(mark in line for line in one.differences):
            return Finding("error", code, traced.file.filename, one.line, _flat(one), cause, form)
    return Finding("error", code, traced.file.filename, 0, "", cause, form)


def _flat(statement: TracedStatement) -> str:
    return " ".join(statement.text.split())[:80]


def _log_written(traced: TracedFile) -> Iterator[Finding]:
    for one in traced.statements:
        locked = {lock.table for lock in one.locks if lock.mode == "ROW EXCLUSIVE"}
        written = {name for name, rows in one.written.items() if rows}
        for name in LOG_TABLES:
            emptied = name in one.rewrites and not one.differences
            if name in traced.before.tables and (emptied or name in locked | written):
                cause = f"it {_written(name)}"
                form = f"-- {_CORRECTED_BY}"
                yield Finding("error", "dml-on-log", traced.file.filename, one.line, _flat(one), cause, form)


def _log_gone(traced: TracedFile) -> Iterator[Finding]:
    for name in LOG_TABLES:
        if name in traced.before.tables and name not in traced.after.tables:
            cause = _gone(name)
            yield _finding(traced, f"table {name} is gone", "log-gone", cause)


def _unprotected(traced: TracedFile, name: str) -> Iterator[Finding]:
    now = traced.after.tables[name].triggers
    for trigger in filter(_is_keeper, traced.before.tables[name].triggers.values()):
        kept = now.get(trigger.name)
        if kept is None or kept.enabled not in {"O", "A"} or kept.definition != trigger.definition:
            cause = f"table {name} loses its trigger {trigger.name}, which keeps what is written as it was written"
            yield _finding(traced, f"trigger {trigger.name}", "history-unprotected", cause, f"{trigger.definition};")


def _rewritten(traced: TracedFile, name: str) -> Iterator[Finding]:
    """Row triggers that run before: what they return is written in place of what the ledger gives."""
    there = traced.before.tables[name].triggers
    for trigger in traced.after.tables[name].triggers.values():
        if trigger.name in there or _is_keeper(trigger) or _BEFORE_ROWS.search(trigger.definition) is None:
            continue
        cause = f"trigger {trigger.name} may put other rows into {name} than the ledger writes"
        form = f"{trigger.definition.replace(' BEFORE ', ' AFTER ', 1)};"
        yield _finding(traced, f"trigger {trigger.name}", "history-writable", cause, form)


def _keepers_changed(traced: TracedFile) -> Iterator[Finding]:
    for name, function in traced.before.functions.items():
        now = traced.after.functions.get(name)
        if name.split("(")[0] in _KEEPERS and now is not None and now.definition != function.definition:
            cause = f"function {name} becomes another: it is what keeps history as it was written"
            yield _finding(traced, f"function {name}", "history-unprotected", cause)


def _hidden(traced: TracedFile, name: str) -> Iterator[Finding]:
    before, after = traced.before.tables[name].unsupported, traced.after.tables[name].unsupported
    for what in after:
        if what not in before and (what == "row level security" or what.startswith("rule ")):
            cause = (
                f"{name} gets {what}: rows that a reader or a worker does not see are missing in what is made of them"
            )
            yield _finding(traced, f"table {name}: unsupported", "history-hidden", cause)


def _of_another(traced: TracedFile, name: str) -> Iterator[Finding]:
    before, after = traced.before.tables[name].owner, traced.after.tables[name].owner
    if before != after:
        cause = f"{name} gets another owner, {after}, who may change what is written"
        line = next((one for one in traced.statements if "owner" in one.text.lower()), None)
        where = (line.line, _flat(line)) if line else (0, "")
        yield Finding("error", "history-writable", traced.file.filename, *where, cause)


def _more_writers(traced: TracedFile, projected: frozenset[str]) -> Iterator[Finding]:
    """Of the log and the projected tables, which only the ledger writes."""
    for name in sorted({*LOG_TABLES, *projected} & traced.after.tables.keys() & traced.before.tables.keys()):
        new = list(_new_writers(traced.before.tables[name], traced.after.tables[name]))
        if new:
            cause = f"only the ledger may write {name}, and now others may: {', '.join(map(str, new))}"
            yield _finding(traced, f"table {name}: grants", "history-writable", cause)


def _new_writers(before: Table, after: Table) -> Iterator[Grant]:
    return (grant for grant in after.grants if grant not in before.grants and grant.privilege in _WRITES)


def _more_owners(traced: TracedFile) -> Iterator[Finding]:
    """Roles that may do from now on what the owner of the log may."""
    log = traced.before.tables.get(LOG_TABLES[0])
    gained = [one for one in traced.after.surroundings if one not in traced.before.surroundings]
    for one in gained if log is not None else ():
        found = re.fullmatch(r"member (?P<role>.+) of (?P<group>.+)", one)
        if found and log is not None and found["group"] == log.owner:
            cause = (
                f"role {found['role']} becomes one of {log.owner}, the owner of the log, who may change what is written"
            )
            yield Finding("error", "history-writable", traced.file.filename, 0, "", cause)
        mighty = [word for word in _MIGHTY if one.startswith("role ") and word in one.split()[2:]]
        if mighty:
            cause = f"{one}: such a role may change or hide what is written"
            yield Finding("error", "history-writable", traced.file.filename, 0, "", cause)


def _definers(traced: TracedFile) -> Iterator[Finding]:
    """Functions that run as their owner, who may do everything, for whoever calls them."""
    for name, function in traced.after.functions.items():
        if "SECURITY DEFINER" not in function.definition or function == traced.before.functions.get(name):
            continue
        if any(grant.grantee == "<public>" for grant in function.grants):
            cause = f"function {name} runs with the rights of its owner, and everybody may call it"
            form = f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC;"
            yield _finding(traced, f"function {name}", "definer-for-everybody", cause, form)


def _many_current_rows(traced: TracedFile, projected: Iterable[str]) -> Iterator[Finding]:
    for name in sorted(set(projected) & traced.before.tables.keys() & traced.after.tables.keys()):
        before, after = (catalogue.tables[name].indexes.values() for catalogue in (traced.before, traced.after))
        lost = [index for index in before if _is_of_current(index)]
        if lost and not any(map(_is_of_current, after)):
            cause = f"{name} loses {lost[0].name}: nothing keeps a key from having two current rows any more"
            yield _finding(traced, f"index {lost[0].name}", "history-unprotected", cause, f"{lost[0].definition};")


def _is_of_current(index: Index) -> bool:
    return " UNIQUE " in index.definition and index.definition.endswith("WHERE row_current_ind")
