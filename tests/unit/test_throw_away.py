"""Folders of throw-away servers: in memory where there is room, and swept when their owners are gone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from position_ledger.embedded import throw_away

OLD = (0.0, 0.0)


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(throw_away, "MEMORY", tmp_path)
    monkeypatch.setattr(throw_away, "MEMORY_FREE_MIN", 0)
    return tmp_path


def test_what_need_not_last_is_in_memory(memory: Path) -> None:
    folder, owner = throw_away.make_folder_for(is_durable=False)
    os.close(owner)
    assert folder.parent == memory


@pytest.mark.parametrize("missing", ["room", "folder"])
def test_without_room_it_is_where_other_temporary_files_are(
    memory: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = memory / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    if missing == "room":
        monkeypatch.setattr(throw_away, "MEMORY_FREE_MIN", 2**62)
    else:
        monkeypatch.setattr(throw_away, "MEMORY", memory / "not there")
    folder, owner = throw_away.make_folder_for(is_durable=False)
    os.close(owner)
    assert folder.parent == elsewhere


def test_what_lasts_is_not_in_memory(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = memory / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    folder, owner = throw_away.make_folder_for(is_durable=True)
    os.close(owner)
    assert folder.parent == elsewhere


def test_only_folders_whose_owners_are_gone_are_swept(memory: Path) -> None:
    # Given one that is held, one whose owner is gone, one that never had any, one that is young, and a stranger's
    held, owner = throw_away.make_folder_for(is_durable=False)
    left, gone = throw_away.make_folder_for(is_durable=False)
    (left / "data").mkdir()
    bare = memory / f"{throw_away.PREFIX}bare"
    bare.mkdir()
    stranger = memory / "something-else"
    stranger.mkdir()
    for folder in (held, left, bare, stranger):
        os.utime(folder, OLD)
    young, let_go = throw_away.make_folder_for(is_durable=False)  # sweeps too, and the owner of one is still there
    assert left.exists()
    os.close(gone)
    os.close(let_go)
    # When they are swept
    throw_away.sweep(memory)
    # Then
    assert {one.name for one in memory.iterdir()} == {held.name, young.name, stranger.name}
    os.close(owner)
