"""Long work tells how far it is: in a bar on a terminal, in a line every few seconds elsewhere."""

import io
import re
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from clade.system import progress as module
from clade.system.progress import Progress, duration, track


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when a test says so."""
    made = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def run(clock, seconds, steps=20, total=100, **options):
    with Progress("step", total, **options) as shown:
        for step in range(1, steps + 1):
            clock.now += seconds
            shown.update(step, f"loss {step / 10}")


def test_without_a_terminal_there_is_a_line_every_five_seconds_with_speed_and_time_left(clock, capsys):
    run(clock, 2.0, unit="images", each=8)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.split()[1] for line in lines] == ["3/100", "6/100", "9/100", "12/100", "15/100", "18/100"]
    assert lines[0] == "step 3/100  4 images/s, about 3 min left  loss 0.3"  # 97 steps of 2 s: 194 s
    assert lines[-1] == "step 18/100  4 images/s, about 3 min left  loss 1.8"


def test_slow_steps_have_a_line_each(clock, capsys):
    run(clock, 90.0, steps=3)
    assert capsys.readouterr().err.splitlines() == [
        "step 1/100  loss 0.1",
        "step 2/100  about 2.5 h left  loss 0.2",
        "step 3/100  about 2.4 h left  loss 0.3",
    ]


def test_the_speed_is_that_of_the_last_minute(clock, capsys):
    with Progress("step", 1000) as shown:
        for step in range(1, 101):
            clock.now += 0.5 if step <= 80 else 10
            shown.update(step)
    assert capsys.readouterr().err.splitlines()[-1] == "step 100/1000  about 2.5 h left"  # 900 steps of 10 s


def test_short_work_says_nothing_where_there_is_no_terminal(clock, capsys):
    run(clock, 0.2)
    assert list(track(range(3), "files")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_quiet_work_says_nothing(clock, capsys, monkeypatch):
    run(clock, 10.0, quiet=True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run(clock, 10.0, quiet=True)
    assert capsys.readouterr() == ("", "")


def screen(width):
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False)


def shown_on(console):
    return [line for line in re.split(r"\x1b\[[0-9?]*[A-Za-z]|[\r\n]", console.file.getvalue()) if line.strip()]


@pytest.mark.parametrize("width", [80, 120])
def test_the_bar_keeps_step_and_time_left_at_80_columns(clock, width):
    console, losses = screen(width), " ".join(f"feature_matching_{k} 12.34" for k in range(9))
    with Progress("step", 60_000, done=12_000, unit="images", each=4, console=console, keep=True) as bar:
        for step in range(12_001, 12_005):
            clock.now += 3
            bar.update(step, losses)
        bar.say("A line above")
    lines = shown_on(console)
    assert all(len(line) <= width for line in lines)
    assert any(line.startswith("A line above") for line in lines)
    last = lines[-1]
    assert "12004/60000" in last
    assert "about 40.0 h left" in last  # 47996 steps of 3 s
    assert "1.3 images/s" in last
    assert "feature_" in last


def test_a_terminal_has_the_bar_and_no_lines(clock):
    console = screen(80)
    run(clock, 20.0, console=console)
    assert not [line for line in shown_on(console) if "loss 0.3" in line and "━" not in line]


def test_what_is_tracked_is_counted_when_it_has_been_worked_on(clock, capsys):
    for _ in track(iter("abc"), "files", 3):
        clock.now += 6
    assert [line.split("  ")[0] for line in capsys.readouterr().err.splitlines()] == [
        "files 1/3",
        "files 2/3",
        "files 3/3",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59, "59 s"), (60, "1 min"), (5900, "98 min"), (7200, "2.0 h"), (100 * 3600, "100.0 h")],
)
def test_a_duration_is_told_in_the_unit_that_fits(seconds, text):
    assert duration(seconds) == text
