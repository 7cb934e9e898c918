"""A user study: what is built, who sees what in which order, and what the votes say."""

from __future__ import annotations

import json
import random
import struct
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import clade
from clade.errors import CladeError, DataError
from clade.labels import LabelSpace
from clade.synthesis import generate
from clade.tools.study import Study, building, plan, read_study, report
from clade.tools.study.answers import AnsweredOtherwise, Answers, UnknownParticipant, UnknownQuestion
from clade.tools.study.building import build
from clade.tools.study.page import page
from clade.tools.study.statistics import binomial_test, bootstrap, wilson
from clade.tools.study.study import ANSWERS

SIZE = (12, 16)
MAPS = [f"street{k}" for k in range(9)]
SPACE = LabelSpace(names=("sky", "road", "tree"), unknown=255)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Label maps with photos, and pictures of three systems."""
    root = tmp_path_factory.mktemp("study-data")
    rng = np.random.default_rng(0)
    for folder in ("set/labels", "set/images", "alpha", "beta", "gamma"):
        (root / folder).mkdir(parents=True)
    exif = Image.Exif()
    exif[0x010E] = "drawn by beta"
    for name in MAPS:
        Image.fromarray(rng.integers(0, 3, SIZE, np.uint8)).save(root / f"set/labels/{name}.png")
        for folder, suffix in (("set/images", "jpg"), ("alpha", "png"), ("beta", "jpg"), ("gamma", "png")):
            pixels = rng.integers(0, 256, (*SIZE, 3), np.uint8)
            extra = {"exif": exif} if suffix == "jpg" else {}
            Image.fromarray(pixels).save(root / folder / f"{name}.{suffix}", **extra)
    (root / "set/classes.json").write_text(json.dumps(SPACE.to_dict()), encoding="utf-8")
    return root


def made(data: Path, out: Path, systems: tuple[str, ...] = ("alpha", "beta"), **options) -> Study:
    return build([data / name for name in systems], data / "set", out, **options).study


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content of every file, and the times of those that participants get."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), int(path.stat().st_mtime) if "pictures" in str(path) else 0)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def pixels(study: Study, folder: Path, name: str) -> np.ndarray:
    assert name in study.pictures
    return np.asarray(Image.open(folder / "public/pictures" / name))


# --- Building ---------------------------------------------------------------------------------------------------------


def test_every_pair_is_asked_with_the_pictures_of_its_systems(data: Path, tmp_path: Path) -> None:
    study = made(data, tmp_path / "s", ("alpha", "beta", "gamma"), questions=4, checks=2)
    asked = [question for question in study.questions if not question.check]
    assert {q.systems for q in asked} == set(combinations(("alpha", "beta", "gamma"), 2))
    assert len({q.id for q in study.questions}) == len(study.questions) == 3 * 4 + 2
    for pair in combinations(("alpha", "beta", "gamma"), 2):
        assert len({q.map for q in asked if q.systems == pair}) == 4
    for question in asked:
        for system, name in zip(question.systems, question.pictures, strict=True):
            source = next((data / system).glob(f"{question.map}.*"))
            assert np.array_equal(pixels(study, tmp_path / "s", name), np.asarray(Image.open(source)))
        ids = np.asarray(Image.open(data / f"set/labels/{question.map}.png"))
        assert np.array_equal(pixels(study, tmp_path / "s", question.label), np.array(SPACE.colors, np.uint8)[ids])


@pytest.mark.parametrize("photos", [False, True])
def test_a_check_sets_a_picture_beside_its_own_pixels_shuffled(data: Path, tmp_path: Path, photos: bool) -> None:
    study = made(data, tmp_path / "s", questions=6, checks=3, photos=photos)
    checks = [question for question in study.questions if question.check]
    assert len(checks) == 3
    assert not {q.map for q in checks} & {q.map for q in study.questions if not q.check}
    for question in checks:
        good, bad = (pixels(study, tmp_path / "s", name) for name in question.pictures)
        assert not np.array_equal(good, bad)
        assert sorted(map(tuple, good.reshape(-1, 3))) == sorted(map(tuple, bad.reshape(-1, 3)))
        folders = ["set/images"] if photos else ["alpha", "beta"]
        sources = [np.asarray(Image.open(next((data / f).glob(f"{question.map}.*")))) for f in folders]
        assert any(np.array_equal(good, source) for source in sources)


def test_networks_draw_as_they_do_elsewhere(data: Path, tmp_path: Path) -> None:
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        generator = clade.create_generator("clade", num_classes=3, unknown_class=True, width=2)
        with torch.no_grad():
            for parameter in generator.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
        (tmp_path / name).mkdir()
        clade.save(generator, tmp_path / name / "last.safetensors", label_space=SPACE)
    systems = [tmp_path / name / "last.safetensors" for name in ("one", "two")]
    study = build(systems, data / "set", tmp_path / "s", questions=2, size=(32, 32), checks=0, device="cpu").study
    assert study.names == ["one", "two"]
    for question in study.questions:
        for path, name in zip(systems, question.pictures, strict=True):
            outcome = generate(
                clade.load(path, "cpu"), [data / f"set/labels/{question.map}.png"], tmp_path / "d", size=(32, 32)
            )
            assert np.array_equal(pixels(study, tmp_path / "s", name), np.asarray(Image.open(outcome.written[0])))


def test_building_twice_gives_the_same_files(data: Path, tmp_path: Path) -> None:
    for name in "ab":
        made(data, tmp_path / name, questions=3, static=True)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    made(data, tmp_path / "a", questions=3, static=True)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    other = made(data, tmp_path / "c", questions=3, seed=1)
    assert not {*other.pictures} & {*read_study(tmp_path / "a").pictures}


def test_a_stopped_build_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(data, tmp_path / "whole", questions=3)
    save, saved = building._save, []

    def stop_after_four(*args):
        if len(saved) == 4:
            raise KeyboardInterrupt
        saved.append(args)
        save(*args)

    monkeypatch.setattr(building, "_save", stop_after_four)
    with pytest.raises(KeyboardInterrupt):
        made(data, tmp_path / "s", questions=3)
    monkeypatch.undo()
    (tmp_path / "s/public/pictures/.00.png.1-2.tmp").write_bytes(b"half")  # as a killed one leaves it
    with pytest.raises(DataError, match=r"building was stopped"):
        read_study(tmp_path / "s")
    with pytest.raises(DataError, match="beginning of another study"):
        made(data, tmp_path / "s", questions=2)
    done = build([data / "alpha", data / "beta"], data / "set", tmp_path / "s", questions=3)
    assert (done.kept, done.drawn) == (4, len(done.study.pictures) - 4)
    assert tree(tmp_path / "s") == tree(tmp_path / "whole")


def test_missing_and_damaged_pictures_are_made_again(data: Path, tmp_path: Path) -> None:
    study = made(data, tmp_path / "s", questions=2)
    before = tree(tmp_path / "s")
    first, second, *_ = (tmp_path / "s/public/pictures" / name for name in study.pictures)
    first.unlink()
    second.write_bytes(second.read_bytes()[:-9])
    with pytest.raises(DataError, match="1 pictures of the study are not there"):
        read_study(tmp_path / "s")
    done = build([data / "alpha", data / "beta"], data / "set", tmp_path / "s", questions=2)
    assert done.drawn == 2
    assert tree(tmp_path / "s") == before


def test_other_studies_and_files_are_left_alone(data: Path, tmp_path: Path) -> None:
    made(data, tmp_path / "s", questions=2)
    before = tree(tmp_path / "s")
    with pytest.raises(DataError, match="holds another study"):
        made(data, tmp_path / "s", questions=2, ask="Which is nicer?")
    assert tree(tmp_path / "s") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("words")
    with pytest.raises(DataError, match="holds other files"):
        made(data, tmp_path / "mine")
    assert len(tree(tmp_path / "mine")) == 1


def test_what_cannot_be_compared_is_said(data: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    for name in MAPS[:4]:
        Image.new("RGB", (8, 8)).save(small / f"{name}.png")
    with pytest.raises(DataError, match=r"different sizes \(alpha 12x16, small 8x8\)"):
        build([data / "alpha", small], data / "set", tmp_path / "s")
    done = build([data / "alpha", small], data / "set", tmp_path / "s", size=(8, 8), checks=0)
    assert len(done.study.questions) == 4
    assert done.without_pictures == MAPS[4:]
    assert {Image.open(path).size for path in (tmp_path / "s/public/pictures").iterdir()} == {(8, 8)}
    with pytest.raises(DataError, match="only 4 label maps"):
        build([data / "alpha", small], data / "set", tmp_path / "t", size=(8, 8), questions=5)
    with pytest.raises(CladeError, match="both be called 'alpha'"):
        build([data / "alpha", data / "alpha"], data / "set", tmp_path / "t")
    with pytest.raises(CladeError, match="compares at least two"):
        build([data / "alpha"], data / "set", tmp_path / "t")
    for path in list(small.iterdir()):
        path.rename(small / f"other-{path.name}")
    with pytest.raises(DataError, match="no label map has a picture of its name"):
        build([data / "alpha", small], data / "set", tmp_path / "t")


def chunks(content: bytes) -> set[bytes]:
    found, at = set(), 8
    while at < len(content):
        found.add(content[at + 4 : at + 8])
        at += 12 + struct.unpack(">I", content[at : at + 4])[0]
    return found


def test_what_participants_get_tells_nothing_of_the_systems(data: Path, tmp_path: Path) -> None:
    study = made(data, tmp_path / "s", questions=4, static=True)
    told = [*study.names, "street", "intact", "broken", "check", "drawn by", study.secret]
    told += [system["sha256"] for system in study.systems]
    for path in (tmp_path / "s/public").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for word in told:
            assert word not in path.name
            assert word.encode() not in content or path.suffix == ".png"
        if path.suffix == ".png":
            assert chunks(content) == {b"IHDR", b"IDAT", b"IEND"}
    assert len({path.stat().st_mtime for path in (tmp_path / "s/public/pictures").iterdir()}) == 1


def test_jpegs_carry_no_exif_data(data: Path, tmp_path: Path) -> None:
    made(data, tmp_path / "s", questions=2, jpeg=90)
    for path in (tmp_path / "s/public/pictures").iterdir():
        image = Image.open(path)
        assert image.format == "JPEG"
        assert not image.getexif()


# --- Order and sides --------------------------------------------------------------------------------------------------


def test_sides_and_order_are_balanced(data: Path, tmp_path: Path) -> None:
    study = made(data, tmp_path / "s", ("alpha", "beta", "gamma"), questions=4, checks=2)
    plans = [plan(study, number) for number in range(40)]
    for screens in plans:
        assert {screen.question.id for screen in screens} == {question.id for question in study.questions}
        for pair in combinations(study.names, 2):
            assert sum(s.flipped for s in screens if s.question.systems == pair) == 2
    for question in study.questions:
        places = [next((k, s) for k, s in enumerate(screens) if s.question is question) for screens in plans]
        assert sum(screen.flipped for _, screen in places) == 20
        assert np.mean([place for place, _ in places]) == (len(study.questions) - 1) / 2
        assert len({place for place, _ in places}) > 5
    assert plan(study, 7) == plans[7]
    assert len({tuple(s.question.id for s in screens) for screens in plans}) == 40


def test_a_side_stands_for_the_picture_that_is_shown_there(data: Path, tmp_path: Path) -> None:
    for screen in plan(made(data, tmp_path / "s", questions=4), 0):
        for k, side in enumerate(("left", "right")):
            assert screen.question.pictures[screen.chosen(side)] == screen.sides[k]


def test_text_cannot_end_the_page_s_script(data: Path, tmp_path: Path) -> None:
    study = made(data, tmp_path / "s", questions=2, intro="</script><script>alert(1)</script> öffnen")
    text = page(study)
    assert "<script>alert" not in text
    part = text.split('<script type="application/json" id="study">')[1].split("</script>")[0]
    assert json.loads(part)["intro"] == study.intro


# --- Answers ----------------------------------------------------------------------------------------------------------


def test_first_answers_stay_and_repeating_them_changes_nothing(data: Path, tmp_path: Path) -> None:
    study = made(data, tmp_path / "s", questions=2)
    answers = Answers(tmp_path / "s" / ANSWERS, study)
    token = answers.begin()
    first = answers.session(token).screens[0]
    for _ in range(2):
        answers.answer(token, first.question.id, "left", 900)
    with pytest.raises(AnsweredOtherwise):
        answers.answer(token, first.question.id, "right", 900)
    with pytest.raises(UnknownQuestion):
        answers.answer(token, "0" * 16, "left", 900)
    with pytest.raises(UnknownParticipant):
        answers.answer("nobody", first.question.id, "left", 900)
    assert [(row.question, row.chosen) for row in answers.rows()] == [(first.question.id, int(first.flipped))]
    again = Answers(tmp_path / "s" / ANSWERS, study).session(token)
    assert (again.done, again.screens) == (1, plan(study, 0)[1:])
    other = made(data, tmp_path / "t", questions=2, seed=5)
    with pytest.raises(DataError, match="answers to another study"):
        Answers(tmp_path / "s" / ANSWERS, other)


def fill(folder: Path, study: Study, preferring: list[float], attentive: list[bool]) -> np.ndarray:
    """Let participants answer all; returns the votes for the first system, (participants, questions)."""
    rng = random.Random(0)
    answers = Answers(folder / ANSWERS, study)
    voted = []
    for share, awake in zip(preferring, attentive, strict=True):
        token = answers.begin()
        row = {}
        for screen in answers.session(token).screens:
            first = awake if screen.question.check else rng.random() < share
            answers.answer(token, screen.question.id, "left" if first != screen.flipped else "right", 1500)
            if not screen.question.check:
                row[screen.question.id] = first
        voted.append([row[question.id] for question in study.questions if not question.check])
    return np.array(voted)


def test_report_counts_the_votes_of_attentive_participants(data: Path, tmp_path: Path) -> None:
    stats = pytest.importorskip("scipy.stats")
    study = made(data, tmp_path / "s", questions=6, checks=2)
    assert report(tmp_path / "s").pairs[0].share is None
    attentive = [True, False, True, True, True]
    voted = fill(tmp_path / "s", study, [0.8, 0.0, 0.7, 0.9, 0.6], attentive)
    found, kept = report(tmp_path / "s"), report(tmp_path / "s", keep_failed=True)
    assert (found.participants, found.failed, found.unfinished, found.unchecked) == (5, 1, 0, 0)
    for result, counted in ((found, voted[attentive]), (kept, voted)):
        pair = result.pairs[0]
        assert (pair.first, pair.second, pair.participants) == ("alpha", "beta", len(counted))
        assert (pair.votes, pair.wins) == (counted.size, counted.sum())
        test = stats.binomtest(int(counted.sum()), counted.size)
        assert pair.p == pytest.approx(test.pvalue)
        assert pair.wilson == pytest.approx(tuple(test.proportion_ci(method="wilson")))
        assert [question.wins for question in result.questions] == counted.sum(0).tolist()
    assert report(tmp_path / "s", allowed=2).pairs == kept.pairs
    assert found.seconds == 1.5


def sent(folder: Path, study: Study, participant: str, count: int) -> Path:
    """A file as the page without server gives it, with the first picture chosen everywhere."""
    answers = [
        {"question": s.question.id, "chosen": s.question.pictures[0], "side": "left", "ms": 10}
        for s in plan(study, 0)[:count]
    ]
    path = folder / f"{participant}-{count}.json"
    path.write_text(json.dumps({"study": study.id, "participant": participant, "answers": answers}), encoding="utf-8")
    return path


def test_report_reads_files_that_participants_sent(data: Path, tmp_path: Path) -> None:
    study = made(data, tmp_path / "s", questions=3, checks=1)
    files = [sent(tmp_path, study, "ann", 2), sent(tmp_path, study, "ann", 4), sent(tmp_path, study, "bob", 4)]
    found = report(tmp_path / "s", [*files, files[0]])
    assert (found.participants, found.failed, found.pairs[0].votes, found.pairs[0].share) == (2, 0, 6, 1.0)
    fill(tmp_path / "s", study, [0.0], [True])
    assert (report(tmp_path / "s", files).pairs[0].votes, report(tmp_path / "s", files).pairs[0].wins) == (9, 6)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda v: v.update(study="other"), "answers another study"),
        (lambda v: v.pop("participant"), "not a file of answers"),
        (lambda v: v.update(answers=3), "not a file of answers"),
        (lambda v: v["answers"][0].update(question="x"), "cannot have given"),
        (lambda v: v["answers"][0].update(chosen="alpha"), "cannot have given"),
        (lambda v: v["answers"][0].update(ms=-1), "cannot have given"),
        (lambda v: v["answers"].append(v["answers"][0]), "answers a question twice"),
        (lambda v: v["answers"].append(None), "cannot have given"),
    ],
)
def test_files_that_no_participant_can_have_got_are_refused(data: Path, tmp_path: Path, change, match: str) -> None:
    study = made(data, tmp_path / "s", questions=2)
    path = sent(tmp_path, study, "eve", 2)
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match=match):
        report(tmp_path / "s", [path])


def test_one_participant_who_answers_otherwise_in_another_file_is_refused(data: Path, tmp_path: Path) -> None:
    study = made(data, tmp_path / "s", questions=2)
    path = sent(tmp_path, study, "eve", 2)
    value = json.loads(path.read_text())
    value["answers"][0]["chosen"] = study.by_id[value["answers"][0]["question"]].pictures[1]
    (tmp_path / "second.json").write_text(json.dumps(value))
    with pytest.raises(DataError, match="otherwise than in"):
        report(tmp_path / "s", [path, tmp_path / "second.json"])


# --- Statistics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("votes", [1, 2, 3, 10, 41, 800, 20_001])
def test_interval_and_test_are_those_of_scipy(votes: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    for wins in {0, 1, votes // 3, votes // 2, (votes + 1) // 2, votes - 1, votes}:
        expected = stats.binomtest(wins, votes)
        assert binomial_test(wins, votes) == pytest.approx(expected.pvalue, rel=1e-8, abs=1e-300)
        assert wilson(wins, votes) == pytest.approx(tuple(expected.proportion_ci(method="wilson")), abs=1e-12)


def test_bootstrap_agrees_with_drawing_participants_one_by_one() -> None:
    rng = random.Random(0)
    votes = [rng.randint(5, 40) for _ in range(20)]
    wins = [sum(rng.random() < share for _ in range(n)) for n, share in zip(votes, [0.3, 0.8] * 10, strict=True)]
    shares = []
    for _ in range(10_000):
        drawn = [rng.randrange(20) for _ in range(20)]
        shares.append(sum(wins[k] for k in drawn) / sum(votes[k] for k in drawn))
    interval = bootstrap(wins, votes, seed=1)
    assert interval is not None
    assert interval == pytest.approx(tuple(np.quantile(shares, [0.025, 0.975])), abs=0.01)
    assert interval == bootstrap(wins, votes, seed=1)
    narrow = wilson(sum(wins), sum(votes))
    assert interval[1] - interval[0] > 1.5 * (narrow[1] - narrow[0])  # votes of one participant go together
    assert bootstrap([3], [5]) is None
