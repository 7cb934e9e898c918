"""Where a prepared dataset lies: a local folder, or any URL that fsspec knows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from clade.data.disk_cache import cache_folder
from clade.data.prepared.manifest import AGAIN, MANIFEST, Manifest, Shard
from clade.errors import DataError, first_line
from clade.io.atomic import atomic_path
from clade.io.hashing import file_hash


def is_url(root: str | Path) -> bool:
    """Whether fsspec is needed: ``s3://...``, ``https://...``, ``memory://...``; a plain path is a local folder."""
    return "://" in str(root)


def default_cache() -> Path:
    """Where copies of remote shards are kept: ``clade/prepared`` in the user's cache folder."""
    return cache_folder() / "prepared"


def require_space(folder: Path, needed: int, what: str, instead: str) -> None:
    """Raises DataError, ending with ``instead``, unless ``needed`` bytes are free where ``folder`` is or will be."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise DataError(f"{folder}: {what} needs {_gib(needed)}, but {_gib(free)} are free there. {instead}")


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.2f} GiB"


class Place:
    """A root from which the manifest and the shards are read. Nothing is opened before it is needed.

    Args:
        root: folder or URL.
        cache: where remote shards are copied to.
    """

    def __init__(self, root: str | Path, cache: str | Path | None = None) -> None:
        self.root = str(root) if is_url(root) else Path(root)
        self.cache = default_cache() if cache is None else Path(cache).expanduser()

    def holds_manifest(self) -> bool:
        """Whether ``prepared.json`` is there; DataError for a URL that cannot be asked."""
        if isinstance(self.root, Path):
            return (self.root / MANIFEST).is_file()
        files, path = self._remote()
        try:
            return bool(files.exists(f"{path}/{MANIFEST}"))
        except Exception as error:
            raise self._unreachable(MANIFEST, error) from error

    def manifest(self) -> Manifest:
        """Raises DataError where there is none, or a damaged one."""
        where = f"{str(self.root).rstrip('/')}/{MANIFEST}"
        try:
            if isinstance(self.root, Path):
                text = (self.root / MANIFEST).read_bytes()
            else:
                files, path = self._remote()
                text = files.cat_file(f"{path}/{MANIFEST}")
        except FileNotFoundError as error:
            raise DataError(
                f"{where}: no such file, so this is no prepared dataset, or one that was not finished. "
                "`clade data prepare` makes one, and goes on with one."
            ) from error
        except DataError:
            raise
        except Exception as error:  # each file system has its own
            raise self._unreachable(MANIFEST, error) from error
        return Manifest.parse(text, where)

    def shard(self, shard: Shard) -> Path:
        """A local file with the bytes of the shard.

        A remote one is copied to the cache first, once, whichever process comes first, and kept under its hash if that
        is right. (fsspec's own ``filecache`` writes under the final name, without a lock or a check: the workers of a
        loader would read each other's unfinished copies.)

        Raises:
            DataError: missing, unreachable, changed, or no room for the copy.
        """
        if isinstance(self.root, Path):
            return self.root / shard.file
        from filelock import FileLock

        target = self.cache / f"{shard.sha256}.safetensors"
        if _is_whole(target, shard):
            return target
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(target.with_suffix(".lock")):
                if not _is_whole(target, shard):
                    self._copy(shard, target)
        except OSError as error:
            raise DataError(f"{target}: the copy of {self.root}/{shard.file} cannot be kept here ({error}).") from error
        return target

    def _copy(self, shard: Shard, target: Path) -> None:
        require_space(
            target.parent, shard.bytes, f"a copy of {shard.file}", "Make room, or choose another folder (cache)."
        )
        files, path = self._remote()
        with atomic_path(target) as temporary:
            try:
                files.get_file(f"{path}/{shard.file}", str(temporary))
            except FileNotFoundError as error:
                raise DataError(
                    f"{self.root}/{shard.file}: no such file, but the prepared dataset needs it. Copy it there again."
                ) from error
            except Exception as error:
                raise self._unreachable(shard.file, error) from error
            if not _is_whole(temporary, shard) or file_hash(temporary) != shard.sha256:
                raise DataError(
                    f"{self.root}/{shard.file}: is not what was written ({temporary.stat().st_size} bytes came, "
                    f"{shard.bytes} bytes with the hash {shard.sha256[:12]}... are needed). {AGAIN}"
                )

    def _remote(self) -> tuple[Any, str]:
        """(file system, path in it). Made in each process anew: an fsspec object does not survive a fork."""
        from fsspec.core import url_to_fs

        try:
            files, path = url_to_fs(self.root)
        except (ImportError, ValueError) as error:
            raise DataError(
                f"{self.root}: this kind of URL cannot be read ({first_line(error)}). Install the package that it "
                "needs (s3fs for s3://, gcsfs for gs://), or copy the folder to this machine."
            ) from error
        return files, str(path).rstrip("/")

    def _unreachable(self, file: str, error: Exception) -> DataError:
        return DataError(
            f"{self.root}: {file} cannot be read ({type(error).__name__}: {first_line(error)}). Is the address right, "
            "and may you read it?"
        )


def _is_whole(path: Path, shard: Shard) -> bool:
    return path.is_file() and path.stat().st_size == shard.bytes
