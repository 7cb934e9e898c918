"""`clade list`."""

from __future__ import annotations

import pytest

import clade
from clade.cli import main
from clade.cli.listing import KINDS, names


def test_all_kinds_on_a_line_each(capsys):
    assert main(["list"]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert list(lines) == list(KINDS)
    assert lines["generators"].split(", ") == clade.list_generators()
    assert {"clade", "spade", "none"} <= set(lines["layers"].split(", "))


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        ("datasets", "camvid"),
        ("discriminators", "segmentation"),
        ("judges", "upernet101"),
        ("metrics", "fid"),
        ("recipes", "scenes-tiny"),
    ],
)
def test_one_kind_on_a_line_each(capsys, kind, known):
    assert main(["list", kind]) == 0
    assert capsys.readouterr().out.splitlines() == names(kind)
    assert known in names(kind)


def test_another_kind_is_refused(capsys):
    assert main(["list", "generator"]) == 2
    assert "generators" in capsys.readouterr().err
