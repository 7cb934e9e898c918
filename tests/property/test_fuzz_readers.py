"""Broken files of every kind: a reader gives a valid result or a CladeError that names the file, nothing else."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clade.data import FolderDataset, check, read_photo
from clade.errors import CladeError, DataError
from clade.labels.files import MAX_PIXELS, open_image, read_instances, read_label
from clade.labels.labelspace import LabelSpace

HEIGHT, WIDTH = 18, 26
SPACE = LabelSpace(names=("a", "b", "c", "d"), unknown=255)
SUFFIX = {"PNG": ".png", "JPEG": ".jpg", "GIF": ".gif", "TIFF": ".tif", "BMP": ".bmp", "WEBP": ".webp"}


def picture(mode: str) -> Image.Image:
    rng = np.random.default_rng(5)
    grey = Image.fromarray(np.repeat(rng.integers(0, 4, (HEIGHT, 13), np.uint8), 2, axis=1))
    if mode.startswith("I;16"):
        return Image.fromarray(np.asarray(grey).astype(np.uint16))
    if mode == "LAB":
        return Image.merge("LAB", (grey, grey, grey))
    if mode == "P":
        indexed = Image.fromarray(np.asarray(grey))
        indexed.putpalette(bytes(range(12)))
        return indexed
    return grey.convert(mode)


def encoded(mode: str, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture(mode).save(stream, kind, **options)
    return stream.getvalue()


def sound_files() -> dict[str, bytes]:
    """One file for each way a picture can be stored."""
    turned = Image.Exif()
    turned[0x0112] = 6
    plans: list[tuple[str, str, dict[str, Any]]] = [
        *((mode, "PNG", {}) for mode in ("L", "P", "I;16", "RGB", "RGBA", "LA", "1")),
        *((mode, "TIFF", {}) for mode in ("L", "I;16", "RGB", "F", "I", "CMYK", "LAB", "YCbCr")),
        *(("L", "TIFF", {"compression": how}) for how in ("tiff_lzw", "tiff_deflate", "packbits")),
        *((mode, "JPEG", {}) for mode in ("L", "CMYK")),
        ("RGB", "JPEG", {"exif": turned}),
        *((mode, "BMP", {}) for mode in ("L", "RGB", "P")),
        ("P", "GIF", {}),
        ("RGB", "WEBP", {"lossless": True}),
    ]
    files = {}
    for number, (mode, kind, options) in enumerate(plans):
        name = f"{number:02d}-{mode.replace(';', '')}{SUFFIX[kind]}"
        files[name] = encoded(mode, kind, **options)
    return files


def damaged(files: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Truncations at many offsets, and bytes changed at random."""
    rng = np.random.default_rng(7)
    for name, whole in files.items():
        stem, suffix = name.rsplit(".", 1)
        for cut in sorted({int(at) for at in np.linspace(0, len(whole) - 1, 12)}):
            yield f"{stem}-cut{cut}.{suffix}", whole[:cut]
        for k in range(16):
            broken = bytearray(whole)
            reach = len(whole) if k % 2 else min(64, len(whole))  # headers are where the harm is done
            for at in rng.integers(0, reach, 1 + k % 3):
                broken[at] = rng.integers(256)
            yield f"{stem}-flip{k}.{suffix}", bytes(broken)


def png(width: int, height: int, depth: int = 8, colour: int = 0, data: bytes = b"\0" * 64) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def claiming() -> Iterator[tuple[str, bytes]]:
    """Small files whose headers claim to be huge, empty, or of an impossible kind."""
    sizes = [(100_000, 100_000), (2**31 - 1, 2**31 - 1), (2**31, 2**31), (2**32 - 1, 1), (1, 2**31 - 1), (0, 0), (0, 9)]
    sizes += [(13_000, 13_000), (16_384, 16_384), (20_000, 20_000), (300_000_000, 1)]
    for width, height in sizes:
        yield f"huge-{width}x{height}.png", png(width, height)
        bitmap = bytearray(encoded("L", "BMP"))
        bitmap[18:26] = struct.pack("<II", width % 2**32, height % 2**32)
        yield f"huge-{width}x{height}.bmp", bytes(bitmap)
        tiff = encoded("L", "TIFF")
        for tag, old, new in ((0x100, WIDTH, width), (0x101, HEIGHT, height)):
            entry = struct.pack("<HHII", tag, 4, 1, old)
            assert entry in tiff
            tiff = tiff.replace(entry, struct.pack("<HHII", tag, 4, 1, new % 2**32))
        yield f"huge-{width}x{height}.tif", tiff
        gif = bytearray(encoded("P", "GIF"))
        gif[6:10] = struct.pack("<HH", *(65_535 if side > 13_000 else side % 300 for side in (width, height)))
        yield f"huge-{width}x{height}.gif", bytes(gif)
    for depth in (0, 3, 16, 255):
        for colour in (0, 2, 3, 7):
            yield f"depth{depth}-colour{colour}.png", png(WIDTH, HEIGHT, depth, colour)


def impostors() -> Iterator[tuple[str, bytes]]:
    """What is no picture at all, under a picture's name."""
    texts = {
        "empty": b"",
        "text": b"no picture\n",
        "html": b"<!DOCTYPE html><html>404</html>",
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 26 18\n%%EndComments\nshowpage\n",
        "pdf": b"%PDF-1.4\n",
        "zeros": bytes(4096),
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "gzip": b"\x1f\x8b\x08" + bytes(20),
        "only-signature": b"\x89PNG\r\n\x1a\n",
        "pickle": b"\x80\x04K\x01.",
    }
    for name, content in texts.items():
        for suffix in (".png", ".tif", ".bmp"):
            yield name + suffix, content
    for value, mode in (
        (7.5, "F"),
        (float("nan"), "F"),
        (float("inf"), "F"),
        (-5, "I"),
        (2**31 - 1, "I"),
        (70_000, "I"),
    ):
        stream = io.BytesIO()
        Image.new(mode, (WIDTH, HEIGHT), value).save(stream, "TIFF")
        yield f"{mode}-{value}.tif", stream.getvalue()
    for width, height in ((1, 1), (WIDTH + 1, HEIGHT), (HEIGHT, WIDTH), (1, 500)):
        yield f"size-{width}x{height}.png", png(width, height, data=bytes((width + 1) * height))


def broken_files() -> dict[str, bytes]:
    sound = sound_files()
    return {**sound, **dict(damaged(sound)), **dict(claiming()), **dict(impostors())}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("broken")
    for name, content in broken_files().items():
        (folder / name).write_bytes(content)
    (folder / "folder.png").mkdir()
    return [*sorted(folder.iterdir()), folder / "missing.png"]


def outcome(read: Callable[[], Any], name: str) -> Any:
    """What ``read`` returns, or None for a CladeError; the error must name the file."""
    try:
        return read()
    except CladeError as error:
        message = str(error)
    assert name in message
    return None


def test_there_are_enough_broken_files(files: list[Path]):
    assert len(files) >= 500


def test_label_reader_gives_ids_of_the_space_or_an_error_with_the_path(files: list[Path]):
    results = [outcome(lambda path=path: read_label(path, SPACE), str(path)) for path in files]
    good = [ids for ids in results if ids is not None]
    assert 20 < len(good) < len(files) / 2  # the sound files, and harmless damage
    for ids in good:
        assert ids.ndim == 2
        assert 0 < ids.size <= MAX_PIXELS
        assert ids.dtype == np.uint8
        assert int(ids.max()) < SPACE.num_rows


def test_label_reader_without_a_space_gives_whole_numbers_or_an_error_with_the_path(files: list[Path]):
    for path in files:
        numbers = outcome(lambda path=path: read_label(path), str(path))
        assert numbers is None or (numbers.ndim == 2 and numbers.dtype in (np.uint8, np.int32))


def test_instance_reader_gives_whole_numbers_or_an_error_with_the_path(files: list[Path]):
    for path in files:
        numbers = outcome(lambda path=path: read_instances(path), str(path))
        assert numbers is None or (numbers.ndim == 2 and numbers.size > 0 and numbers.dtype == np.int32)


def test_photo_reader_gives_rgb_or_an_error_with_the_path(files: list[Path]):
    for path in files:
        photo = outcome(lambda path=path: read_photo(path), str(path))
        assert photo is None or (photo.ndim == 3 and photo.shape[2] == 3 and photo.dtype == np.uint8)


def test_opening_raises_the_error_that_was_asked_for(files: list[Path]):
    for path in files:
        outcome(lambda path=path: open_image(path, DataError), str(path))
    for name in ("text.png", "00-L-cut0.png", "huge-100000x100000.png", "folder.png", "missing.png"):
        with pytest.raises(DataError, match=name):
            open_image(files[0].parent / name, DataError)


def test_a_tiff_that_holds_only_a_part_of_its_pixels_is_refused(tmp_path: Path):
    """Pillow fills the rest with 0, which would be a class."""
    entry = struct.pack("<HHII", 0x101, 4, 1, HEIGHT)
    tiff = encoded("L", "TIFF")
    assert entry in tiff
    (tmp_path / "part.tif").write_bytes(tiff.replace(entry, struct.pack("<HHII", 0x101, 4, 1, HEIGHT + 5)))
    with pytest.raises(CladeError, match=f"holds {HEIGHT * WIDTH} of its {WIDTH} x {HEIGHT + 5}"):
        read_label(tmp_path / "part.tif")


def test_postscript_is_never_run(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(dict(impostors())["eps.png"])
    with pytest.raises(CladeError, match="cannot identify"):
        read_label(tmp_path / "a.png")


def test_a_header_that_claims_a_huge_picture_allocates_nothing(files: list[Path]):
    huge = [path for path in files if path.name.startswith("huge-")]
    assert len(huge) >= 40
    tracemalloc.start()
    try:
        for path in huge:
            outcome(lambda path=path: read_label(path), str(path))
            outcome(lambda path=path: read_photo(path), str(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


@pytest.mark.parametrize("part", ["labels", "images", "instances"])
def test_dataset_reads_a_sound_sample_or_raises_with_the_path(tmp_path: Path, part: str):
    folders = {name: tmp_path / name for name in ("labels", "images", "instances")}
    for folder in folders.values():
        folder.mkdir()
    sound = encoded("L", "PNG")
    exact = (".png", ".tif", ".bmp", ".gif")
    for name, content in broken_files().items():
        if part != "images" and not name.endswith(exact):
            continue
        for other, folder in folders.items():
            own = other == part
            stem, suffix = name.rsplit(".", 1)
            (folder / f"{stem}-{suffix}.{suffix if own else 'png'}").write_bytes(content if own else sound)
    dataset = FolderDataset(tmp_path, split=None, label_space=SPACE)
    assert len(dataset) > 500
    good = 0
    for index in range(len(dataset)):
        sample = outcome(lambda index=index: dataset.read(index), str(folders[part] / dataset.name(index)))
        if sample is None:
            continue
        good += 1
        assert sample.image.shape == (*sample.ids.shape, 3)
        assert sample.instances.shape == sample.ids.shape
    assert 10 < good < len(dataset) / 2

    report = check(tmp_path, num_classes=4, unknown=255)
    # Files with unknown colours are one problem together; which they are stands in the report.
    named = "\n".join([*report.problems, *(path for split in report.splits for path in split.colored)])
    unread = [name for name in map(dataset.name, range(len(dataset))) if f"{folders[part] / name}." not in named]
    assert len(unread) == good


WRONG_SPACES: list[bytes] = [
    b"",
    b"{",
    b"\xff\xfe\x00",
    b'"\xe9"',
    b"null",
    b"[]",
    b"7",
    b'"names"',
    b"{}",
    b"[" * 200_000,
    b'{"names":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    b'{"names":["a"],"unknown":NaN}',
    b'{"names":["a"],"unknown":Infinity}',
    b'{"names":["a"],"unknown":-1e999}',
    b'{"names":["a"],"colors":[[NaN,0,0]]}',
    b'{"names":["a"],"colors":[[Infinity,0,0]]}',
    b'{"names":["a"],"unknown_color":[Infinity,0,0]}',
    b'{"names":["a"],"remap":{"1":Infinity}}',
    b'{"names":["a"],"unknown":' + b"9" * 5000 + b"}",
    b'{"names":{"' + b"9" * 5000 + b'":"a"}}',
    b'{"names":["a"],"remap":{"' + b"9" * 5000 + b'":0}}',
    b'{"names":["a"],"colors":[[1e400,0,0]]}',
    b'{"names":["a"],"colors":[[' + b"9" * 400 + b",0,0]]}",
]


def wrong_values() -> Iterator[bytes]:
    """Every key with values of every wrong type."""
    values = [
        None,
        True,
        -1,
        0,
        1e9,
        10**30,
        0.5,
        "",
        "abc",
        "a" * 9,
        [],
        [None],
        [[]],
        [[1, 2]],
        [["a", "b", "c"]],
        {},
    ]
    values += [
        {"0": "a"},
        {"a": 0},
        {"1": None},
        {"0": [0]},
        [[0, 0, 256]],
        [[-1, 0, 0]],
        [{"r": 1}],
        [[[0], [0], [0]]],
    ]
    values += ["\x00", {"0": "a", "2": "b"}, {"1.5": 0}, {" 1 ": 0, "1": 0}, ["a"] * 70_000]
    for key in ("names", "colors", "unknown", "ignore", "unknown_color", "ignore_color", "remap"):
        for value in values:
            yield json.dumps({"names": ["a", "b"], key: value}).encode()


def test_label_space_reader_gives_a_working_space_or_an_error_with_the_path(tmp_path: Path):
    cases = [*WRONG_SPACES, *wrong_values()]
    numbers = np.array([[0, 1, 255, 65_535]])
    refused = 0
    for k, content in enumerate(cases):
        path = tmp_path / f"classes-{k}.json"
        path.write_bytes(content)
        space = outcome(lambda path=path: LabelSpace.from_json(path), str(path))
        if space is None:
            refused += 1
            continue
        outcome(lambda space=space: space.encode(numbers, "somewhere"), "somewhere")
        assert space.colorize(np.arange(space.num_rows)).shape == (space.num_rows, 3)
        assert LabelSpace.from_dict(space.to_dict()) == space
    assert len(WRONG_SPACES) <= refused < len(cases)


def test_label_space_that_is_a_folder_or_missing_is_an_error_with_the_path(tmp_path: Path):
    (tmp_path / "classes.json").mkdir()
    for path in (tmp_path / "classes.json", tmp_path / "none.json"):
        with pytest.raises(CladeError, match=path.name):
            LabelSpace.from_json(path)
