from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tools.coverage_gates import gate_of, gates_for, idle_gates, main, shortfalls, table

if TYPE_CHECKING:
    from pathlib import Path

GATES = {"src/position_ledger/domain/": 90.0, "": 85.0}


def report(**covered: float) -> dict[str, Any]:
    return {
        "files": {
            f"src/position_ledger/{name.replace('__', '/')}.py": {
                "summary": {"percent_covered": percent},
                "missing_lines": list(range(1, 20)),
            }
            for name, percent in covered.items()
        }
    }


def test_the_longest_path_decides_the_gate() -> None:
    assert gate_of("src/position_ledger/domain/position.py", GATES) == 90
    assert gate_of("src/position_ledger/cli.py", GATES) == 85


def test_a_module_exactly_at_its_gate_passes() -> None:
    """S46."""
    assert shortfalls(report(domain__position=90.0, cli=85.0), GATES) == []


def test_one_weak_module_is_not_hidden_by_strong_ones() -> None:
    """S46."""
    below = shortfalls(report(domain__position=89.99, cli=84.99, store=100.0), GATES)
    assert [(row.module.rpartition("/")[2], row.gate) for row in below] == [("cli.py", 85), ("position.py", 90)]


def test_a_gate_that_holds_for_nothing_is_named() -> None:
    assert idle_gates(report(cli=100.0), GATES) == ["src/position_ledger/domain/"]
    assert idle_gates({"files": {}}, GATES) == list(GATES)


def test_the_table_says_what_is_missing_and_how_much() -> None:
    (line,) = table(shortfalls(report(cli=12.34), GATES)).splitlines()
    assert "src/position_ledger/cli.py" in line
    assert "12.34 %  of 85 %" in line
    assert line.endswith("lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, …")


@pytest.mark.parametrize(("is_root", "gate"), [(True, 80.0), (False, 0.0)])
def test_what_only_root_runs_is_measured_only_there(*, is_root: bool, gate: float) -> None:
    gates = gates_for({"coverage_gates": {"": 85.0}, "coverage_gates_as_root": {"src/a.py": 80.0}}, is_root=is_root)

    assert gates == {"": 85.0, "src/a.py": gate}


@pytest.mark.parametrize(
    ("covered", "code", "says"),
    [
        ({"domain__position": 95.0, "cli": 85.0}, 0, "all 2 modules pass"),
        ({"domain__position": 89.0, "cli": 85.0}, 1, "1 modules are below"),
        ({"cli": 100.0}, 1, "holds for no measured module"),
    ],
)
def test_the_command_exits_with_the_answer(
    covered: dict[str, float],
    code: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gates = "\n".join(f'"{start}" = {percent}' for start, percent in GATES.items())
    (tmp_path / "pyproject.toml").write_text(f"[tool.coverage_gates]\n{gates}\n")
    (tmp_path / "coverage.json").write_text(json.dumps(report(**covered)))
    monkeypatch.chdir(tmp_path)

    assert main(["coverage.json"]) == code
    assert says in capsys.readouterr().out
