"""The files that ship with a release and become a team's own."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

FOLDERS: Final = {"migrations": ".sql", "projections": ".py", "workers": ".py"}
"""What is copied from the release: the folders, and how the names of their files end."""

TEMPLATES: Final = {
    ".env": "env",
    ".gitignore": "gitignore",
    "README.md": "readme",
    "check.sh": "check",
    "pytest.ini": "pytest",
    "tests/conftest.py": "conftest",
    "tests/test_replay.py": "test_replay",
    "tests/one_position.jsonl": "one_position.jsonl",
}
"""What is written beside them: the path in the team's folder, and the template's name."""


def shipped(folder: str) -> dict[str, Traversable]:
    """The files of one of the folders by name, in order."""
    found = files(f"position_ledger.reference.{folder}").iterdir()
    return {one.name: one for one in sorted(found, key=lambda file: file.name) if one.name.endswith(FOLDERS[folder])}


def new_files() -> Iterator[tuple[str, bytes]]:
    """Path and content of every file of a new folder, except the sums of the migrations."""
    for folder in FOLDERS:
        for name, file in shipped(folder).items():
            yield f"{folder}/{name}", file.read_bytes()
    for path, name in TEMPLATES.items():
        yield path, files(__package__).joinpath("template", f"{name}.template").read_bytes()
