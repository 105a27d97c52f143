from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.postgresql_15 import VARIABLE, bin_folder

if TYPE_CHECKING:
    from pathlib import Path


def test_the_folder_named_in_the_environment_is_used(tmp_path: Path) -> None:
    (tmp_path / "postgres").touch()
    assert bin_folder({VARIABLE: str(tmp_path)}) == tmp_path


@pytest.mark.parametrize("ci", ["true", "1", "True"])
def test_in_ci_a_missing_server_is_a_failure(tmp_path: Path, ci: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=VARIABLE):
        bin_folder({VARIABLE: str(tmp_path), "CI": ci})


@pytest.mark.parametrize("outside", [{}, {"CI": "false"}, {"CI": ""}])
def test_elsewhere_it_is_a_skip_that_says_why(tmp_path: Path, outside: dict[str, str]) -> None:
    with pytest.raises(pytest.skip.Exception, match="postgresql-15"):
        bin_folder({VARIABLE: str(tmp_path), **outside})
