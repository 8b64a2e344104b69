"""Outputs appear whole or not at all, whenever the process is killed."""

import os
from pathlib import Path

import pytest

from medsae.io import atomic_folder, atomic_path


def write(target: Path, text: str) -> None:
    with atomic_folder(target) as temporary:
        for name in ("a", "b"):
            (temporary / name).write_text(text)


def content(folder: Path) -> set[str]:
    assert {path.name for path in folder.iterdir()} == {"a", "b"}
    return {path.read_text() for path in folder.iterdir()}


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "made"
    with pytest.raises(KeyboardInterrupt), atomic_folder(target) as temporary:
        (temporary / "half").write_text("x")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    for text in ("one", "two"):
        write(target, text)
        assert content(target) == {text}
    assert list(tmp_path.iterdir()) == [target]


def test_only_what_a_killed_writer_of_the_same_folder_left_is_removed(tmp_path):
    own, neighbour = tmp_path / ".made.5.tmp", tmp_path / ".made.5.1.tmp"
    for folder in (own, neighbour):
        folder.mkdir()
        (folder / "half").write_text("x")
    write(tmp_path / "made", "one")
    assert not own.exists()
    assert [path.name for path in neighbour.iterdir()] == ["half"]  # the writer of "made.5" lives


class Killed(BaseException):
    """What a dead process does: from here on nothing, not even cleaning up."""


def killed(step: int, target: Path, text: str) -> bool:
    """Write ``target``, dying at the ``step``-th change of a name or a removal, if there is one."""
    left = [step]

    def dying(function):
        def call(*arguments, **more):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return function(*arguments, **more)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("rename", "replace", "rmdir", "unlink"):
            patch.setattr(os, name, dying(getattr(os, name)))
        try:
            write(target, text)
        except Killed:
            return True
    return False


def test_a_kill_at_any_step_of_a_replacement_loses_neither_folder(tmp_path):
    seen, steps = set(), 0
    while True:
        target = tmp_path / str(steps) / "made"
        write(target, "old")
        died = killed(steps, target, "new")
        if target.exists():
            seen |= content(target)
        else:
            seen.add("missing")
            with pytest.raises(RuntimeError), atomic_folder(target):
                raise RuntimeError
            assert content(target) == {"old"}  # brought back
        write(target, "next")
        assert content(target) == {"next"}
        assert list(target.parent.iterdir()) == [target]
        if not died:
            break
        steps += 1
    assert steps >= 2 and seen == {"old", "new", "missing"}


def test_a_file_is_replaced_at_once_and_an_error_keeps_the_old_one(tmp_path):
    target = tmp_path / "table.csv"
    for text in ("one", "two"):
        with atomic_path(target) as temporary:
            assert temporary.suffix == ".csv"
            temporary.write_text(text)
        assert target.read_text() == text
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("three")
        raise RuntimeError
    assert target.read_text() == "two" and list(tmp_path.iterdir()) == [target]
