"""The worked example of docs/data-check.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rich.console import Console

from clade.data import check

PAGE = Path(__file__).parents[2] / "docs/data-check.md"


def test_the_example_prints_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = PAGE.read_text(encoding="utf-8")
    (python,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (shown,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(python, {})
    with open("printed", "w+", encoding="utf-8") as file:
        check("street").print(Console(file=file, width=110))
        file.seek(0)
        assert [line.rstrip() for line in file] == shown.splitlines()
