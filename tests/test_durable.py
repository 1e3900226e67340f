"""Atomic file writes: in which order bytes, name and folder reach the disk."""

import os

import pytest

from avsc_e2e.durable import flush_folder, replacing


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """What is asked of the system: fsync with the name of what it flushes, and the rename."""
    seen: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        seen.append(f"fsync {os.path.basename(os.readlink(f'/proc/self/fd/{descriptor}'))}")
        fsync(descriptor)

    def noted_replace(source, target) -> None:
        seen.append(f"replace {os.path.basename(source)} {os.path.basename(target)}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    return seen


def test_bytes_before_the_name_and_the_folder_after(tmp_path, calls):
    folder = tmp_path / "run"
    folder.mkdir()
    with replacing(folder / "model") as partial:
        partial.write_text("new")
        assert calls == []
    assert calls == [f"fsync {partial.name}", f"replace {partial.name} model", "fsync run"]
    assert partial.name != "model"


def test_nothing_takes_its_place_when_the_block_fails(tmp_path, calls):
    def fail() -> None:
        with replacing(tmp_path / "model") as partial:
            partial.write_text("half")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert calls == []
    assert not list(tmp_path.iterdir())


def test_a_folder_is_flushed(tmp_path, calls):
    flush_folder(tmp_path)
    assert calls == [f"fsync {tmp_path.name}"]
