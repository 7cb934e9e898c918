"""What is kept in the user's cache directory."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from clade.data.disk_cache import cache_folder, cached, files_key


def test_processes_that_start_at_once_make_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        time.sleep(0.05)  # the others arrive meanwhile
        return {"a": np.arange(3)}

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda _: cached("kind", "key", make), range(4)))
    assert len(made) == 1
    assert all(np.array_equal(result["a"], [0, 1, 2]) for result in results)


def test_key_changes_with_the_files_and_with_the_rest(tmp_path: Path):
    path = tmp_path / "a"
    path.write_text("1")
    os.utime(path, ns=(0, 0))
    keys = {files_key([path]), files_key([path], "rule"), files_key([tmp_path / "b"]), files_key([])}
    os.utime(path, ns=(0, 1))
    keys.add(files_key([path]))
    path.write_text("12")
    os.utime(path, ns=(0, 0))
    keys.add(files_key([path]))
    assert len(keys) == 6


def test_folder_is_the_user_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "clade"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the standard says to ignore it
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache_folder() == tmp_path / ".cache" / "clade"


def test_arrays_that_hold_objects_are_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "clade").mkdir()
    np.savez(tmp_path / "clade/kind-key.npz", a=np.array([{}], dtype=object))
    assert cached("kind", "key", lambda: {"a": np.ones(1)})["a"].tolist() == [1]
