"""``clade study``: the commands, and the server as participants and attackers meet it."""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clade.cli import study as commands_study
from clade.errors import CladeError, UsageError
from clade.tools.study import Study, plan, read_study, report
from clade.tools.study.answers import Answers
from clade.tools.study.building import build
from clade.tools.study.study import ANSWERS

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")
TestClient = pytest.importorskip("fastapi.testclient").TestClient

PAGE = Path(__file__).parents[2] / "docs/study.md"


def write_pictures(root: Path, folders: tuple[str, ...] = ("spadelike", "claderun"), count: int = 8) -> None:
    rng = np.random.default_rng(0)
    for folder in (*folders, "dataset/val/labels", "dataset/val/images"):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for k in range(count):
            pixels = rng.integers(0, 3, (12, 16), np.uint8) if folder.endswith("labels") else noise(rng)
            Image.fromarray(pixels).save(root / folder / f"{k}.png")


def noise(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (12, 16, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study of two folders of pictures: 5 questions and 2 attention checks."""
    write_pictures(tmp_path)
    systems = [tmp_path / "spadelike", tmp_path / "claderun"]
    build(systems, tmp_path / "dataset/val", tmp_path / "study", questions=5, checks=2)
    return tmp_path / "study"


def client(folder: Path):
    from clade.tools.study.server import create_app

    return TestClient(create_app(folder))


def begin(http) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Headers of a new participant, and their screens."""
    reply = http.post("api/session")
    assert reply.status_code == 201
    return {"Authorization": f"Bearer {reply.json()['token']}"}, reply.json()["screens"]


def rows(folder: Path) -> int:
    return len(Answers(folder / ANSWERS, read_study(folder)).rows())


def call(*words: object) -> int:
    """``clade study ...`` by its own functions."""
    name, *rest = map(str, words)
    parser = argparse.ArgumentParser(allow_abbrev=False)
    getattr(commands_study, f"{name}_arguments")(parser)
    return getattr(commands_study, name)(parser.parse_args(rest), [])


# --- Server -----------------------------------------------------------------------------------------------------------


def test_a_participant_goes_from_the_first_to_the_last_screen(folder: Path) -> None:
    http = client(folder)
    who, screens = begin(http)
    study = read_study(folder)
    assert [s["question"] for s in screens] == [s.question.id for s in plan(study, 0)]
    for done, screen in enumerate(screens):
        assert all(http.get(f"pictures/{screen[part]}").status_code == 200 for part in ("label", "left", "right"))
        state = http.get("api/session", headers=who).json()
        assert (state["done"], state["total"]) == (done, 7)
        assert state["screens"] == screens[done:]
        answer = {"question": screen["question"], "side": "left", "ms": 1200}
        assert http.post("api/answers", json=answer, headers=who).json() == {"saved": True}
    assert http.get("api/session", headers=who).json()["screens"] == []
    votes = [v for v in Answers(folder / ANSWERS, study).rows() if not study.by_id[v.question].check]
    shown = {screen["question"]: screen["left"] for screen in screens}
    assert all(study.by_id[v.question].pictures[v.chosen] == shown[v.question] for v in votes)


def test_double_submission_keeps_the_first_answer(folder: Path) -> None:
    http = client(folder)
    who, screens = begin(http)
    answer = {"question": screens[0]["question"], "side": "left", "ms": 10}
    assert [http.post("api/answers", json=answer, headers=who).status_code for _ in range(2)] == [200, 200]
    again = http.post("api/answers", json={**answer, "side": "right"}, headers=who)
    assert again.status_code == 409
    assert "first answer counts" in again.json()["detail"]
    assert [row.side for row in Answers(folder / ANSWERS, read_study(folder)).rows()] == ["left"]


def test_many_at_once_lose_nothing_and_double_nothing(folder: Path) -> None:
    with client(folder) as http:

        def take_part(_: int) -> None:
            who, screens = begin(http)
            for screen in screens:
                answer = {"question": screen["question"], "side": "right", "ms": 5}
                with ThreadPoolExecutor(2) as pool:
                    sent = [pool.submit(http.post, "api/answers", json=answer, headers=who) for _ in range(2)]
                assert [reply.result().status_code for reply in sent] == [200, 200]

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(take_part, range(6)))
    found = report(folder, keep_failed=True)
    assert rows(folder) == 6 * 7
    assert (found.participants, found.unfinished, found.left) == (6, 0, 0.0)
    assert [question.wins for question in found.questions] == [3] * 5  # sides are balanced over participants


def test_participants_go_on_after_a_restart(folder: Path) -> None:
    http = client(folder)
    who, screens = begin(http)
    http.post("api/answers", json={"question": screens[0]["question"], "side": "left", "ms": 1}, headers=who)
    again = client(folder)
    assert again.get("api/session", headers=who).json() == {"total": 7, "done": 1, "screens": screens[1:]}
    begun = again.post("api/session", headers=who).json()
    assert (begun["done"], f"Bearer {begun['token']}") == (1, who["Authorization"])
    assert Answers(folder / ANSWERS, read_study(folder)).participants() == 1


def test_wrong_requests_are_refused_with_a_reason(folder: Path) -> None:
    http = client(folder)
    who, screens = begin(http)
    good = {"question": screens[0]["question"], "side": "left", "ms": 10}
    wrong = {"Authorization": "Bearer nobody"}
    replies = [
        (401, http.get("api/session")),
        (401, http.get("api/session", headers=wrong)),
        (401, http.post("api/answers", json=good)),
        (401, http.post("api/answers", json=good, headers=wrong)),
        (404, http.post("api/answers", json={**good, "question": "0" * 16}, headers=who)),
        (422, http.post("api/answers", json={**good, "side": "middle"}, headers=who)),
        (422, http.post("api/answers", json={**good, "ms": -1}, headers=who)),
        (422, http.post("api/answers", json={**good, "ms": "10"}, headers=who)),
        (422, http.post("api/answers", json={**good, "chosen": 1}, headers=who)),
        (422, http.post("api/answers", json=[good], headers=who)),
        (422, http.post("api/answers", content=b"\xff{", headers=who)),
        (413, http.post("api/answers", content=b" " * 5000, headers=who)),
        (413, http.post("api/answers", content=iter([b" " * 3000] * 2), headers=who)),
        (404, http.get("pictures/nothing.png")),
        (404, http.get("docs")),
        (404, http.get("openapi.json")),
    ]
    assert [code for code, _ in replies] == [reply.status_code for _, reply in replies]
    assert all(len(reply.json()["detail"]) > 5 for _, reply in replies)
    assert rows(folder) == 0


@pytest.mark.parametrize("path", ["../../study.json", "..%2f..%2fstudy.json", "%2e%2e/%2e%2e/study.json", "../index"])
def test_no_path_leads_out_of_the_pictures(folder: Path, path: str) -> None:
    http = client(folder)
    for place in ("pictures/", ""):
        reply = http.get(place + path)
        assert reply.status_code == 404
        assert b"secret" not in reply.content


def test_nothing_that_is_served_names_a_system(folder: Path) -> None:
    http = client(folder)
    who, screens = begin(http)
    study: Study = read_study(folder)
    first = {"question": screens[0]["question"], "side": "left", "ms": 10}
    replies = [http.get("/"), http.get("api/session", headers=who), http.post("api/session")]
    replies += [http.post("api/answers", json={**first, "side": side}, headers=who) for side in ("left", "right", "no")]
    replies += [http.get(f"pictures/{name}") for name in study.pictures]
    told = ["spade", "clade", "intact", "broken", study.secret, "pictures/0.png", str(folder)]
    told += [system["sha256"] for system in study.systems] + [*study.pictures.values()]
    for reply in replies:
        served = reply.content + str(reply.headers).encode()
        assert not [word for word in told if word.encode() in served]
        assert not {"etag", "last-modified"} & {*reply.headers}
    # What checks and questions, and first and second pictures, look like is the same.
    assert len({(len(s["question"]), len(s["left"]), len(s["right"]), *s) for s in screens}) == 1


def test_the_page_asks_nobody_else_for_anything(folder: Path) -> None:
    reply = client(folder).get("/")
    assert not re.search(r"(src|href)=\"(?!data:)", reply.text)
    assert "http" not in reply.text
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="ends processes by POSIX signals")
def test_what_was_answered_survives_a_killed_server(folder: Path) -> None:
    code = "import sys; from clade.tools.study.server import serve; serve(sys.argv[1], port=0)"

    def start() -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.search(r"http://\S+", line)
        assert address is not None, line
        return process, address[0]

    process, address = start()
    try:
        with httpx.Client(base_url=address, trust_env=False) as http:
            who, screens = begin(http)
            for screen in screens[:3]:
                answer = {"question": screen["question"], "side": "left", "ms": 7}
                assert http.post("api/answers", json=answer, headers=who).status_code == 200
    finally:
        process.kill()
        process.communicate()
    assert rows(folder) == 3
    process, address = start()
    try:
        state = httpx.get(f"{address}/api/session", headers=who, trust_env=False).json()
        assert (state["done"], state["screens"]) == (3, screens[3:])
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert "1 participants and 3 answers" in out


def test_an_address_in_use_is_said(folder: Path) -> None:
    from clade.tools.study.server import _listening, serve

    with _listening("127.0.0.1", 0) as taken, pytest.raises(CladeError, match=r"cannot be listened on .*--port"):
        serve(folder, port=taken.getsockname()[1])


def test_without_fastapi_the_error_says_what_to_install(folder: Path) -> None:
    code = (
        "import sys; sys.modules['fastapi'] = None\n"
        "from argparse import Namespace\n"
        "from clade import errors\nfrom clade.cli import study as commands_study\n"
        f"args = Namespace(dir={str(folder)!r}, host='127.0.0.1', port=0)\n"
        "try: commands_study.serve(args, [])\n"
        "except errors.CladeError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "clade-synthesis[study]"' in done.stdout


# --- Commands ---------------------------------------------------------------------------------------------------------


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.replace("\\\n", "").splitlines()]
    return [shlex.split(line)[2:] for line in lines if line.startswith("clade study ")]


def test_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path, ("spade-pictures", "clade-pictures"), count=43)
    Path("consent.txt").write_text("We ask you ...", encoding="utf-8")
    ran = []
    for words in commands():
        if words[0] == "serve":
            parser = argparse.ArgumentParser()
            commands_study.serve_arguments(parser)
            assert Path(parser.parse_args(words[1:]).dir, "study.json").is_file()
        elif any(word.endswith(".safetensors") for word in words):  # networks are drawn in tests/unit/test_study.py
            parser = argparse.ArgumentParser()
            commands_study.build_arguments(parser)
            parser.parse_args(words[1:])
        else:
            if "answers-1.json" in words:
                for k in (1, 2):
                    value = {"study": read_study(words[1]).id, "participant": f"{k}", "answers": []}
                    Path(f"answers-{k}.json").write_text(json.dumps(value), encoding="utf-8")
            assert call(*words) == 0, capsys.readouterr().err
        ran.append(words[0])
    assert {*ran} == {"build", "serve", "report"}


def test_build_says_what_it_made_and_goes_on(folder: Path, capsys) -> None:
    root = folder.parent
    words = ["build", f"a={root / 'spadelike'}", f"b={root / 'claderun'}", "--labels", root / "dataset/val"]
    assert call(*words, "--out", root / "s", "--questions", 3, "--static") == 0
    out = capsys.readouterr().out
    assert "a and b: 6 questions, 3 of them attention checks; 18 pictures written" in out
    assert "keep study.json" in out
    assert (root / "s/public/index.html").is_file()
    assert call(*words, "--out", root / "s", "--questions", 3) == 0
    assert "0 pictures written, 18 were there" in capsys.readouterr().out
    with pytest.raises(UsageError, match="compares at least two"):
        call("build", root / "spadelike", "--labels", root / "dataset/val", "--out", root / "t")
    with pytest.raises(UsageError, match="--size is '12'"):
        call(*words, "--out", root / "t", "--size", "12")


def test_report_in_every_form(folder: Path, capsys) -> None:
    http, study = client(folder), read_study(folder)
    for _ in range(3):
        who, screens = begin(http)
        for screen in screens:
            question = study.by_id[screen["question"]]
            side = "left" if screen["left"] == question.pictures[0] else "right"
            http.post("api/answers", json={"question": question.id, "side": side, "ms": 800}, headers=who)
    assert call("report", folder, "--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert "questions" not in value
    assert value["pairs"][0]["wins"] == value["pairs"][0]["votes"] == 15
    assert value["pairs"][0]["p"] == pytest.approx(2 / 2**15)
    assert call("report", folder, "--format", "csv", "--questions") == 0
    pairs, questions = capsys.readouterr().out.split("\n\n")
    assert [row["votes"] for row in csv.DictReader(io.StringIO(pairs))] == ["15"]
    assert [row["for_first"] for row in csv.DictReader(io.StringIO(questions))] == ["3"] * 5
    assert call("report", folder, "--format", "markdown") == 0
    assert "| spadelike vs. claderun | 15 | 3 | 100.0% |" in capsys.readouterr().out
    assert call("report", folder) == 0
    out = capsys.readouterr().out
    assert "spadelike vs. claderun" in out
    assert "3 participants; 0 failed the attention checks." in out


def test_serving_and_counting_do_not_load_torch() -> None:
    code = "import sys, clade.tools.study, clade.tools.study.server; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
