"""Hashes of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from clade.io.hashing import file_hash


def test_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path):
    content = bytes(range(256)) * 8193  # more than two blocks, and not a whole number of them
    (tmp_path / "file").write_bytes(content)
    assert file_hash(tmp_path / "file") == hashlib.sha256(content).hexdigest()
