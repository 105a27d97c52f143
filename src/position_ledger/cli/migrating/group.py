"""The commands of `position-ledger migrate`, a table of names like that of the program."""

from __future__ import annotations

from position_ledger.cli.app import Entry, LazyGroup

COMMANDS = {
    "status": Entry("migrating.applying:status", "Which migrations are applied, pending, edited or unknown."),
    "up": Entry("migrating.applying:up", "Apply pending migrations, up to NNN or all."),
    "down": Entry("migrating.applying:down", "Roll back NNN and every later migration, or only the latest."),
    "plan": Entry("migrating.planning:plan", "What up would do: locks, rows, rebuilds, what is unsafe, the way back."),
    "verify": Entry("migrating.applying:verify", "Is the schema what the applied migrations make?"),
}

group = LazyGroup(name="migrate", table=COMMANDS, help="Bring the schema to where the code needs it, and back.")
