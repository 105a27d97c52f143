"""Settings that name folders, and the settings file of the working directory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from position_ledger.errors import ConfigurationError
from position_ledger.packages import import_told
from position_ledger.projection.definition import load_projections
from position_ledger.projection.fingerprint import fingerprint_of
from position_ledger.settings import load_settings
from position_ledger.supervision import check_workers
from position_ledger.worker import BROKER_OF_FOLDER, broker_maker

ROOT = Path(__file__).parents[2]
SHIPPED = "position_ledger.reference.projections"


def copy_of(folder: str, place: Path) -> Path:
    return Path(shutil.copytree(ROOT / folder, place / folder, ignore=shutil.ignore_patterns("__pycache__")))


def test_a_copied_folder_defines_the_same_tables_with_the_same_fingerprints(tmp_path: Path) -> None:
    """Given the shipped projections in a folder, when loaded, then no table has to be rebuilt."""
    copied = load_projections(str(copy_of("projections", tmp_path)))
    shipped = load_projections(SHIPPED)

    assert [one.table for one in copied] == [one.table for one in shipped]
    assert [fingerprint_of(one) for one in copied] == [fingerprint_of(one) for one in shipped]
    assert all(one.row is not other.row for one, other in zip(copied, shipped, strict=True))


def test_two_folders_of_one_name_are_two_packages(tmp_path: Path) -> None:
    one, other = (tmp_path / name / "projections" for name in ("one", "other"))
    for number, folder in enumerate((one, other)):
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(f"NUMBER = {number}\n")

    assert [import_told(str(folder)).NUMBER for folder in (one, other, one)] == [0, 1, 0]
    assert import_told(str(one)) is import_told(f"{one}/../projections")
    assert import_told("projections").__file__ == str(ROOT / "projections" / "__init__.py")


def test_a_folder_needs_no_init_file_and_its_modules_import_each_other_relatively(tmp_path: Path) -> None:
    folder = copy_of("projections", tmp_path)
    (folder / "__init__.py").unlink()
    (folder / "shared.py").write_text("from .positions import POSITIONS\n")

    assert len(load_projections(str(folder))) == len(load_projections(SHIPPED))


@pytest.mark.parametrize(
    ("name", "line", "told"),
    [
        ("absolute", "from absolute.positions import POSITIONS", "import each other relatively"),
        ("missing", "import no_such_library", "No module named 'no_such_library'"),
        ("broken", "POSITIONS = 1 / 0", "bad.py line 1: ZeroDivisionError: division by zero"),
        ("syntax", "POSITIONS = (", "SyntaxError"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_the_remedy(
    tmp_path: Path, name: str, line: str, told: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "bad.py").write_text(f"{line}\n")

    with pytest.raises(ConfigurationError, match=told) as caught:
        load_projections(str(folder))
    assert str(folder) in str(caught.value)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no such folder"):
        load_projections(str(tmp_path / "nowhere"))


def test_workers_in_a_folder_have_a_broker(tmp_path: Path) -> None:
    folder = copy_of("workers", tmp_path)

    assert check_workers(str(folder)) == BROKER_OF_FOLDER == "position_ledger.worker:make_broker"
    assert broker_maker(str(folder)).__code__.co_filename == str(folder / "broker.py")
    assert check_workers("position_ledger.reference.workers") == "position_ledger.reference.workers.broker:make_broker"


@pytest.mark.parametrize(
    ("content", "told"), [(None, "cannot import the module broker"), ("", "no function make_broker")]
)
def test_workers_without_a_broker_are_refused(tmp_path: Path, content: str | None, told: str) -> None:
    if content is not None:
        (tmp_path / "broker.py").write_text(content)
    with pytest.raises(ConfigurationError, match=told):
        check_workers(str(tmp_path))


# The settings file


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_settings_file_of_the_working_directory_is_read(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keyword arguments win over the environment, and that over the file; other programs' variables are left alone."""
    (here / ".env").write_text(
        "# a comment\nHOME=/elsewhere\nSETTLING_POLL_S=9\nDATABASE_URL=postgresql:///other\n"
        "POSITION_LEDGER_SCHEMA=desk\nPOSITION_LEDGER_PROJECTIONS=projections\nPOSITION_LEDGER_MIGRATIONS=./sql\n"
        "POSITION_LEDGER_POOL_SIZE_MAX=3\nPOSITION_LEDGER_WAIT_TIMEOUT_S=7\n"
    )
    (here / "projections").mkdir()
    monkeypatch.setenv("POSITION_LEDGER_POOL_SIZE_MAX", "4")

    settings = load_settings(wait_timeout_s=8)

    assert settings.ledger_schema == "desk"
    assert settings.projections == str(here / "projections")
    assert settings.migrations == str(here / "sql")
    assert settings.workers == "position_ledger.reference.workers"
    assert (settings.pool_size_max, settings.wait_timeout_s, settings.settling_poll_s) == (4, 8, 1.0)
    assert (settings.database_url, settings.home) == (None, None)


def test_a_folder_stays_the_same_wherever_the_process_goes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(projections="./projections", workers="~/workers")
    monkeypatch.chdir("/")

    assert settings.projections == str(here / "projections")
    assert settings.workers == str(Path.home() / "workers")


def test_a_mistyped_setting_in_the_file_is_refused(here: Path) -> None:
    (here / ".env").write_text("POSITION_LEDGER_PROJECTION=projections\n")

    with pytest.raises(ConfigurationError, match=r"POSITION_LEDGER_PROJECTION \(in .*\.env\) is no setting: there are"):
        load_settings()
    (here / ".env").unlink()
    with pytest.raises(ConfigurationError, match="projection is no setting: there are"):
        load_settings(projection="projections")
