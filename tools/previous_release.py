"""A dump of a ledger with data in every table, as a team that upgrades has one, and the recording of `init`.

    python -m tools.previous_release            writes both; run it once for each release, before its migrations change

The dump is plain SQL for psql, made by the pg_dump of the embedded wheel, and begins with the roles that it needs.
"""

from __future__ import annotations

import gzip
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path

import psycopg

from position_ledger import (
    ClosePosition,
    DetectEdge,
    Ledger,
    MarkPosition,
    OpenPosition,
    RecordGameState,
    ReducePosition,
)
from position_ledger.embedded.binaries import reachable_binaries
from position_ledger.embedded.temporary import TemporaryPostgres
from position_ledger.migration import load_folder
from position_ledger.settings import load_settings
from position_ledger.testing import record
from position_ledger.testing.databases import Template
from tests.support.database_trading import DatabaseTrading

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"
RECORDING = ROOT / "src" / "position_ledger" / "scaffolding" / "template" / "one_position.jsonl.template"
NO_QUEUE = "redis://127.0.0.1:1/0"
COMMANDS = 200
MARKS = 520
"""More than a stream has before it gets a snapshot."""

ROLE = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN CREATE ROLE {role} NOLOGIN; END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- another database of this cluster was faster
END $$;
"""
MEMBERSHIP = """
DO $$ BEGIN
    IF NOT pg_has_role('{member}', '{role}', 'MEMBER') THEN GRANT {role} TO {member}; END IF;
END $$;
"""
OWN_ROLES = "SELECT r.rolname FROM pg_roles AS r WHERE starts_with(r.rolname, 'position_ledger_') ORDER BY r.rolname"
OWN_MEMBERS = """
SELECT m.member::regrole::text, m.roleid::regrole::text FROM pg_auth_members AS m
 WHERE starts_with(m.member::regrole::text, 'position_ledger_') ORDER BY 1, 2
"""


def main() -> None:
    """Make both."""
    with TemporaryPostgres(is_durable=False) as server, Template.make(server.database_url, load_settings()) as template:
        with template.clone() as url, _opened(url) as ledger:
            _one_position(ledger)
            print(f"{RECORDING}: {record(ledger, RECORDING)} events")
        with template.clone() as url:
            with _opened(url) as ledger:
                _everything(ledger, url)
            number = load_folder(ROOT / "migrations")[-1].number
            target = DATA / f"ledger_{number:03}.sql.gz"
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(gzip.compress(_dump(url), mtime=0))
            print(f"{target}: {target.stat().st_size:,} bytes")


def _opened(url: str) -> Ledger:
    return Ledger.open(database_url=url, redis_url=NO_QUEUE)


def _one_position(ledger: Ledger) -> None:
    opened = ledger.execute(_opening("M"))
    position = opened.position_id
    for command in (
        MarkPosition(position_id=position, price="0.47"),
        ReducePosition(position_id=position, quantity=40, price="0.50"),
        ClosePosition(position_id=position, price="0.55", reason="manual"),
    ):
        ledger.execute(command)
    ledger.catch_up(60)


def _opening(market: str, **more: object) -> OpenPosition:
    fields = {"account": "main", "market": market, "side": "YES", "quantity": 100, "entry_price": "0.42"}
    return OpenPosition(environment="paper", **{**fields, **more})


def _everything(ledger: Ledger, url: str) -> None:
    strategy = ledger.reference.add_strategy("momentum", config={"days": 20}, status="active")
    model = ledger.reference.add_model("elo", config={"k": 20})
    ledger.reference.add_platform("kalshi")
    ledger.reference.add_market_event("game-1", "Cleveland at Boston")
    named = {"strategy": strategy.id, "model": model.id}
    edge = ledger.execute(DetectEdge(environment="paper", market="EDGY", true_win_probability="0.6", **named))
    for score in (0, 7, 14):
        ledger.execute(RecordGameState(environment="paper", game_id="G", home_score=score, away_score=3))
    held = ledger.execute(_opening("EDGY", edge=edge.token, platform="kalshi", **named))
    for first in range(0, MARKS, 40):
        prices = [f"0.{4000 + first + step}" for step in range(40)]
        ledger.execute_many([MarkPosition(position_id=held.position_id, price=price) for price in prices])
    with closing(DatabaseTrading(ledger, url, seed=12)) as trading:
        trading.run(COMMANDS)


def _dump(url: str) -> bytes:
    """The roles of the cluster, which pg_dump leaves out, and the database."""
    with closing(psycopg.connect(url)) as connection:
        roles = [ROLE.format(role=name) for (name,) in connection.execute(OWN_ROLES).fetchall()]
        members = [MEMBERSHIP.format(member=m, role=r) for m, r in connection.execute(OWN_MEMBERS).fetchall()]
    program = reachable_binaries().postgres_bin / "pg_dump"
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "ledger.sql"
        command: list[str | Path] = [program, "--no-owner", "--format=plain", "--file", file, url]
        subprocess.run(command, check=True, cwd=place)  # noqa: S603 - the wheel's own program
        return "".join([*roles, *members]).encode() + file.read_bytes()


if __name__ == "__main__":
    main()
