"""The page that explains the floors of the house, the linter that keeps them, and the house itself say the same."""

from __future__ import annotations

import re
from pathlib import Path

import clade

ROOT = Path(__file__).parents[2]
WITHOUT_CODE = {"weights", "py.typed", "__init__.py"}


def of_the_linter() -> list[set[str]]:
    layers = (ROOT / ".importlinter").read_text(encoding="utf-8").split("layers =")[1].split("\n")
    return [set(re.findall(r"clade\.(\w+)", line)) for line in layers if line.strip()]


def of_the_page() -> list[set[str]]:
    page = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    rows = page.split("| floor | what |")[1].split("\n\n")[0].strip().split("\n")[1:]
    return [set(re.findall(r"`(\w+)/?`", row.split("|")[1])) for row in rows]


def test_page_and_linter_have_the_same_floors():
    assert of_the_page() == of_the_linter()


def test_every_room_is_on_a_floor():
    rooms = {path for path in Path(clade.__file__).parent.iterdir() if path.name != "__pycache__"}
    names = {path.stem for path in rooms if path.name not in WITHOUT_CODE}
    assert names == set().union(*of_the_linter())


def test_what_the_page_says_where_to_find_is_there():
    page = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    table = page.split("| looked for | it is in |")[1].split("\n\n")[0]
    for row in table.strip().split("\n")[1:]:
        folder = ""
        for place in re.findall(r"`([\w./]+)`", row.split("|")[2]):
            folder = place.rpartition("/")[0] + "/" if "/" in place else folder
            path = ROOT / "clade" / (place if "/" in place else folder + place)
            assert path.exists(), f"{place}: not there"
