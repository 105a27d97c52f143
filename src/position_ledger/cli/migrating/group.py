"""The commands of `position-ledger migrate`, a table of names like that of the program."""

from __future__ import annotations

from position_ledger.cli.app import Entry, LazyGroup

COMMANDS = {
    "status": Entry("migrating.applying:status", "Which migrations are applied, pending, edited or unknown."),
    "new": Entry("migrating.writing:new", "Write the next migration from a template."),
    "sum": Entry("migrating.writing:renew", "Write the sum file again after migrations were edited."),
    "up": Entry("migrating.applying:up", "Apply pending migrations, up to NNN or all."),
    "down": Entry("migrating.rolling_back:down", "Roll back NNN and every later migration, or only the latest."),
    "plan": Entry("migrating.planning:plan", "What up would do: locks, rows, rebuilds, what is unsafe, the way back."),
    "history": Entry("migrating.recording:history", "Who did what to the schema, when, from where and why."),
    "baseline": Entry("migrating.recording:baseline", "Adopt a database that has the schema already."),
    "accept-checksum": Entry("migrating.recording:accept", "Accept an edited file whose effect is the same."),
    "verify": Entry("migrating.applying:verify", "Is the schema what the applied migrations make?"),
}

group = LazyGroup(name="migrate", table=COMMANDS, help="Bring the schema to where the code needs it, and back.")
