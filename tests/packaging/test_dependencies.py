"""The page of dependencies and their licences is true for what is installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.dependency_page import PAGE, Dependency, accepted, asked, dependencies, licence_of, main, page

ROOT = Path(__file__).parents[2]


def test_the_committed_page_equals_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert PAGE.read_text(encoding="utf-8") == page(dependencies())
    assert main(["--check"]) == 0


def test_a_page_that_differs_is_named_and_writing_it_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a page of long ago
    monkeypatch.chdir(tmp_path)
    PAGE.parent.mkdir(parents=True)
    PAGE.write_text("# Dependencies\n", encoding="utf-8")

    # when it is compared, then the command to mend it is named
    assert main(["--check"]) == 1
    assert "run make docs" in capsys.readouterr().out

    # when it is written, then it is the page that is committed
    assert main([]) == 0
    assert PAGE.read_text(encoding="utf-8") == (ROOT / PAGE).read_text(encoding="utf-8")


def test_every_licence_is_one_that_was_accepted() -> None:
    assert [row for row in dependencies() if not accepted(row)] == []


@pytest.mark.parametrize("licence", ["GPL-3.0-only", "AGPL-3.0-or-later", "LGPL-3.0-only", "SSPL-1.0"])
def test_a_licence_that_nobody_accepted_is_refused(licence: str) -> None:
    assert not accepted(Dependency("newcomer", licence, "the ledger"))


def test_the_closure_reaches_what_dependencies_depend_on() -> None:
    reasons = asked()
    assert reasons["mdurl"] == {"markdown-it-py"}
    assert {"pytest", "ruff"}.isdisjoint(reasons)


def test_every_dependency_is_pinned_with_a_hash() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = set(re.findall(r"^([a-z0-9-]+)==\S+.*\\\n +--hash=sha256:[0-9a-f]{64}", pins, re.MULTILINE))
    assert set(asked()) <= pinned


def test_a_package_without_a_known_licence_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "newcomer-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: newcomer\nVersion: 1.0\nLicense: ask us\n")
    with pytest.raises(ValueError, match="newcomer declares no licence"):
        licence_of("newcomer")


def test_what_is_declared_for_an_absent_package_is_what_it_declares_where_it_is_installed() -> None:
    assert licence_of("async-timeout") in {"Apache-2.0", "Apache 2"}
