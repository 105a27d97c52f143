"""The wheel, built by the project's own backend without a network, holds one import name and all that it needs."""

from __future__ import annotations

import email
import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

from position_ledger.scaffolding import make_folder

ROOT = Path(__file__).parents[2]
REFERENCE = ("projections", "workers", "migrations")

pytestmark = pytest.mark.xdist_group("packaging")


class Built(NamedTuple):
    wheel: Path
    sdist: Path

    @property
    def names(self) -> set[str]:
        with zipfile.ZipFile(self.wheel) as wheel:
            return {name for name in wheel.namelist() if not name.endswith("/")}


def build(source: Path, target: Path, *targets: str) -> None:
    """Call the build backend as it is installed; it needs no network."""
    options = [option for one in targets for option in ("-t", one)]
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(target), *options]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    target = tmp_path_factory.mktemp("dist")
    build(ROOT, target, "wheel", "sdist")
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return Built(wheel, sdist)


@pytest.fixture(scope="module")
def installed_python(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that sees our dependencies, but of the ledger only the wheel."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    (site,) = home.glob("lib/python*/site-packages")
    outer = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "dependencies.pth").write_text(outer + "\n")  # .pth files in there, the editable one too, are not followed
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(built.wheel)], check=True, capture_output=True, timeout=60)
    return python


def output(python: Path, code: str, cwd: Path) -> str:
    return subprocess.run(
        [python, "-P", "-c", code], cwd=cwd, check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


def in_checkout(folder: str, pattern: str) -> set[str]:
    paths = {path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob(pattern)}
    return {str(path) for path in paths if "__pycache__" not in path.parts}


def test_position_ledger_is_the_only_import_name(built: Built) -> None:
    tops = {name.partition("/")[0] for name in built.names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"position_ledger"}


def test_the_wheel_holds_every_module_and_data_file_of_the_package(built: Built) -> None:
    expected = {f"position_ledger/{name}" for name in in_checkout("src/position_ledger", "*.*")}
    assert "position_ledger/py.typed" in expected
    assert expected - built.names == set()


@pytest.mark.parametrize("folder", REFERENCE)
def test_what_a_team_edits_ships_as_reference(built: Built, folder: str) -> None:
    pattern = "*.sql" if folder == "migrations" else "*.py"
    expected = {f"position_ledger/reference/{folder}/{name}" for name in in_checkout(folder, pattern)}
    assert expected
    assert expected <= built.names


def test_the_wheel_holds_no_tests_tools_or_caches(built: Built) -> None:
    assert [name for name in built.names if "__pycache__" in name or "/tests/" in name or "/tools/" in name] == []


def test_the_metadata_names_licence_python_and_commands(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        (metadata_name,) = (name for name in built.names if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(wheel.read(metadata_name))
        entry_points = wheel.read(metadata_name.replace("METADATA", "entry_points.txt")).decode()
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "position-ledger = position_ledger.cli:main" in entry_points
    assert "rebuild-projection = position_ledger.cli:rebuild_projection" in entry_points


def test_a_wheel_made_from_the_sdist_is_the_same_wheel(built: Built, tmp_path: Path) -> None:
    subprocess.run(["tar", "-xzf", str(built.sdist), "-C", str(tmp_path)], check=True, timeout=60)
    build(next(tmp_path.iterdir()), tmp_path / "dist", "wheel")
    (again,) = (tmp_path / "dist").glob("*.whl")
    assert again.read_bytes() == built.wheel.read_bytes()


LOOK = """
import json
from importlib.resources import files
import position_ledger.reference.projections as projections
import position_ledger.reference.workers as workers
migrations = files("position_ledger.reference.migrations")
print(json.dumps({
    "projections": projections.__file__,
    "workers": workers.__file__,
    "migrations": {path.name: path.read_text("utf-8") for path in migrations.iterdir() if path.name.endswith(".sql")},
}))
"""


def expected_migrations() -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in (ROOT / "migrations").glob("*.sql")}


def test_reference_folders_are_reached_by_the_same_names_from_the_wheel(installed_python: Path, tmp_path: Path) -> None:
    seen = json.loads(output(installed_python, LOOK, tmp_path))
    assert str(installed_python.parents[1]) in seen["projections"]
    assert str(installed_python.parents[1]) in seen["workers"]
    assert seen["migrations"] == expected_migrations()


def test_reference_folders_are_reached_by_the_same_names_from_the_checkout(tmp_path: Path) -> None:
    seen = json.loads(output(Path(sys.executable), LOOK, tmp_path))
    assert seen["projections"] == str(ROOT / "projections" / "__init__.py")
    assert seen["workers"] == str(ROOT / "workers" / "__init__.py")
    assert seen["migrations"] == expected_migrations()


@pytest.mark.parametrize("script", ["position-ledger", "rebuild-projection"])
def test_the_installed_commands_explain_themselves(installed_python: Path, tmp_path: Path, script: str) -> None:
    command = [str(installed_python.with_name(script)), "--help"]
    shown = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60).stdout
    assert "Usage" in shown


def test_the_wheel_makes_the_same_folder_for_a_team_as_the_checkout(installed_python: Path, tmp_path: Path) -> None:
    command = [str(installed_python.with_name("position-ledger")), "init", "desk"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    make_folder(tmp_path / "expected")
    made, expected = (
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "desk", tmp_path / "expected")
    )
    assert made == expected


@pytest.mark.uncounted
@pytest.mark.slow
def test_users_of_the_wheel_get_its_types(installed_python: Path, tmp_path: Path) -> None:
    """The public names, used as tests/typing/api.py does, check strictly against the wheel alone."""
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--python-executable={installed_python}"]
    command = [*mypy, f"--cache-dir={tmp_path / 'cache'}", str(ROOT / "tests" / "typing" / "api.py")]
    checked = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=110)
    assert checked.returncode == 0, checked.stdout
