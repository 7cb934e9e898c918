"""The GPU benchmark, run tiny on the CPU: that it measures, keeps to its time and keeps what it has."""

from __future__ import annotations

import json
import time

import pytest
import torch

from benchmarks import common
from benchmarks.gpu import __main__ as program
from benchmarks.gpu.session import Session


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def session(tmp_path) -> Session:
    session = Session(torch.device("cpu"), quick=True, minutes=1, out=tmp_path / "out")
    session.table("speed", ("what", "seconds"), ["A note."])
    return session


@pytest.mark.slow
def test_every_part_runs_without_a_gpu(tmp_path, results):
    out = tmp_path / "out"
    assert program.main(["--device", "cpu", "--quick", "--out", str(out)]) == 0
    numbers = json.loads((out / "results.json").read_text())
    assert numbers["failures"] == []
    networks = {"backbone", "clade", "clade-icpe", "spade", "pix2pixhd"}
    assert {row["network"].split(",")[0] for row in numbers["latency"]} == networks
    assert {row["network"] for row in numbers["throughput"]} == networks
    assert all(row["PSNR (dB)"] == "same" or row["PSNR (dB)"] > 30 for row in numbers["latency"])
    assert {row["kernel"] for row in numbers["kernel"]} == {"copy", "forward", "sums", "input"}
    assert all(row["images/s"] > 0 for row in numbers["training"])
    assert [row["network"] for row in numbers["training"]] == ["clade", "clade, triton"]
    assert len(numbers["goals"]) == 5
    assert {path.name.split("-")[1] for path in out.glob("gpu-*.md")} >= {"latency", "kernel", "training", "throughput"}
    assert not results.exists()  # a trial run is no result


def test_without_a_gpu_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert program.main([]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_what_fails_is_noted_and_the_rest_goes_on(session):
    def broken():
        raise ValueError("no such kernel")

    def items(session):
        yield "broken", broken
        yield "whole", lambda: session.add("speed", ("whole", 0.5))

    session.run([("part", 1, items)])
    assert session.failed
    written = json.loads((session.out / "results.json").read_text())
    assert written["speed"] == [{"what": "whole", "seconds": 0.5}]
    assert written["failures"] == [{"what": "part: broken", "why": "ValueError: no such kernel"}]


def test_every_number_is_on_disk_at_once(session, results):
    session.add("speed", ("first", 1.0))
    (table,) = results.glob("gpu-speed-*.md")
    assert "| first |" in table.read_text()
    assert (session.out / table.name).read_text() == table.read_text()


def test_a_part_leaves_out_what_no_longer_fits_its_share(session):
    session.end = time.monotonic() + 20
    done = []

    def slow(label):
        time.sleep(1.2)
        done.append(label)

    def items(session):
        for label in ("a", "b", "c"):
            yield label, lambda label=label: slow(label)

    session.run([("long", 1, items), ("last", 9, lambda session: iter([("z", lambda: done.append("z"))]))])
    assert done == ["a", "z"]
    assert session.tables["failures"].rows == [("long", "no time for 2: b, c")]
    assert not session.failed


def test_an_item_that_hangs_ends_with_the_time(session):
    session.end = time.monotonic() + 0.3
    session.run([("part", 1, lambda session: iter([("hangs", lambda: time.sleep(60))]))])
    assert time.monotonic() < session.end + 30
    assert session.tables["failures"].rows == [("the rest", "the time was over")]
