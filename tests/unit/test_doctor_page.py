"""The doctor's HTML page: whole, self-contained, and with the right pixels."""

from __future__ import annotations

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clade.data import check
from clade.data.doctor import pictures

VOID = {"meta", "img"}
SPACE = {"names": ["sky", "<b>tree</b>"], "colors": [[0, 0, 255], [0, 255, 0]], "unknown": 255}


class Page(HTMLParser):
    """Checks that tags close in order, and keeps texts, attributes and pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def headings(self) -> str:
        return "\n".join(self.texts)

    def pictures(self) -> list[Image.Image]:
        sources = [value for tag, key, value in self.attributes if (tag, key) == ("img", "src")]
        return [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in sources]


def save(path: Path, pixels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(pixels, np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "a & b"
    for split, names in (("train", ["one", "<i>two"]), ("val", ["three"])):
        for k, name in enumerate(names):
            ids = np.zeros((30, 40))
            ids[10 + k :] = 1
            save(root / split / "labels" / f"{name}.png", ids)
            save(root / split / "images" / f"{name}.png", np.full((30, 40, 3), 60 + 40 * k))
    (root / "classes.json").write_text(json.dumps(SPACE))
    return root


def test_the_page_is_well_formed_and_needs_no_other_file(root: Path, tmp_path: Path):
    path = check(root).html(tmp_path / "report.html")
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    assert not {"script", "link", "iframe", "b", "i"} & set(page.tags)
    assert all(value.startswith("data:image/") for _, key, value in page.attributes if key in ("src", "href"))
    text = page.headings()
    for words in ("No problems found.", "a & b", "<b>tree</b>", "train/<i>two", "val/three"):
        assert words in text


def test_bars_are_as_long_as_the_shares(root: Path, tmp_path: Path):
    page = Page(check(root).html(tmp_path / "report.html").read_text())
    bars = [value for tag, key, value in page.attributes if (tag, key) == ("div", "style")]
    # train: 21 of 60 rows are sky, 39 tree; val: 10 of 30 and 20; the longest bar is 20 of 30.
    shares = [21 / 60, 10 / 30, 39 / 60, 20 / 30]
    assert [bar.partition(";")[0] for bar in bars] == [f"width:{100 * share / (20 / 30):.2f}%" for share in shares]
    assert bars[0].endswith("background:rgb(0,0,255)")
    assert "35.000%" in page.headings()


def test_samples_show_photos_and_overlays_by_seed(root: Path, tmp_path: Path):
    report = check(root)
    one = report.html(tmp_path / "one.html").read_text()
    assert report.html(tmp_path / "two.html").read_text() == one
    shown = [np.asarray(picture.convert("RGB")).astype(int) for picture in Page(one).pictures()]
    photo, over = next((a, b) for a, b in zip(shown[::2], shown[1::2], strict=True) if abs(a.mean() - 60) < 3)
    assert abs(photo - 60).max() <= 3
    assert abs(over[3, 20] - [30, 30, 157]).max() <= 6  # half photo, half sky
    assert abs(over[25, 20] - [30, 157, 30]).max() <= 6


def test_the_worst_cases_have_their_sheets(root: Path, tmp_path: Path):
    ids = np.zeros((30, 40))
    ids[5:25, 5:35] = 77
    save(root / "train/labels/bad.png", ids)
    save(root / "train/images/bad.png", np.full((30, 40, 3), 99))
    save(root / "train/labels/flat.png", np.zeros((9, 9)))
    save(root / "train/images/flat.png", np.full((9, 9, 3), 5))
    save(root / "train/labels/small.png", [[0, 1]])
    save(root / "train/images/small.png", np.full((9, 9, 3), 7))
    save(root / "val/labels/again.png", ids * 0 + 1)
    save(root / "val/images/again.png", np.full((30, 40, 3), 99))
    save(root / "val/labels/colour.png", [[[1, 2, 3]] * 4])
    save(root / "val/images/colour.png", [[[8, 8, 8]] * 4])
    (root / "val/labels/broken.png").write_bytes(b"nothing")
    save(root / "val/images/broken.png", [[[8, 8, 8]] * 4])
    report = check(root)
    page = Page(report.html(tmp_path / "report.html").read_text())
    text = page.headings()
    for words in (
        "Ids outside the label space",
        "train/bad: id 77: 600 pixels",
        "Constant and nearly empty label maps",
        "Files of different size",
        "Equal pictures",
        "Colours that mean no class",
        "Problems",
        "Notes",
        "What fixes it, in the recipe",
        "remap: {77: 255}",
        "# On the command line: --data.num_classes",
        "--data.remap '{77: 255}'",
        "id 77: no class",
        "val/broken: the label map cannot be read",
        "broken.png: cannot be read",
    ):
        assert words in text
    alarm = [p for p in page.pictures() if p.size == (40, 30) and close(np.asarray(p.convert("RGB"))[15, 20])]
    assert alarm


def close(color: np.ndarray) -> bool:
    return bool(np.abs(color.astype(int) - pictures.ALARM).max() < 25)


def test_pictures_are_small_and_labels_keep_their_colours():
    pixels = np.zeros((1000, 2000, 3), np.uint8)
    assert pictures._small(pixels, Image.Resampling.BOX).shape == (110, 220, 3)
    assert len(pictures.data_uri(pixels[:110, :220])) < 2000


def test_a_folder_without_classes_or_files_still_has_a_page(root: Path, tmp_path: Path):
    (root / "classes.json").unlink()
    report = check(root)
    text = Page(report.html(tmp_path / "report.html").read_text()).headings()
    assert "num_classes: 2" in text
    (tmp_path / "empty/labels").mkdir(parents=True)
    assert "no label files" in Page(check(tmp_path / "empty").html(tmp_path / "e.html").read_text()).headings()
