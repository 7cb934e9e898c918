"""Files that are there whole or not at all: their permissions, and what writing them leaves alone."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from clade.io.atomic import atomic_path

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")


@pytest.fixture(params=[0o022, 0o077, 0o007], ids=oct)
def mask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def permissions(path):
    return path.stat().st_mode & 0o777


def test_a_file_has_the_permissions_of_any_new_one(mask, tmp_path):
    with atomic_path(tmp_path / "open") as temporary:
        temporary.write_bytes(b"x")
    with atomic_path(tmp_path / "private") as temporary:  # as some libraries write
        temporary.touch(mode=0o600)
    (tmp_path / "plain").touch()
    assert {permissions(path) for path in tmp_path.iterdir()} == {0o666 & ~mask}


def test_threads_write_under_the_mask_of_the_process_which_nobody_touches(mask, tmp_path, monkeypatch):
    def touched(_):
        raise AssertionError("the mask belongs to all threads of the process")

    monkeypatch.setattr(os, "umask", touched)
    together = threading.Barrier(4)

    def write(worker):
        together.wait()
        for k in range(40):
            with atomic_path(tmp_path / f"{worker}-{k}") as temporary:
                temporary.touch()
            (tmp_path / f"plain-{worker}-{k}").touch()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    monkeypatch.undo()
    files = list(tmp_path.iterdir())
    assert len(files) == 2 * 4 * 40
    assert {permissions(path) for path in files} == {0o666 & ~mask}


def test_what_a_killed_process_left_under_the_temporary_name_decides_nothing(tmp_path):
    with atomic_path(tmp_path / "file") as temporary:
        temporary.touch()
    temporary.touch(mode=0o600)
    with atomic_path(tmp_path / "file") as again:
        assert again == temporary
        assert not again.exists()
        again.touch()
    (tmp_path / "plain").touch()
    assert permissions(tmp_path / "file") == permissions(tmp_path / "plain")


def test_a_block_that_writes_nothing_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(path):
        pass
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
