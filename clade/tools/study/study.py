"""A study as it lies on disk, and the order in which each participant sees it.

DIR/study.json       which picture is whose: stays with whoever runs the study
DIR/public/          what participants may have: pictures/ under blinded names, perhaps index.html
DIR/answers.sqlite   the answers that the server got
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from clade.errors import DataError
from clade.io.atomic import atomic_path

FORMAT = 1
STUDY, PUBLIC, PICTURES, ANSWERS = "study.json", "public", "pictures", "answers.sqlite"
INTACT, BROKEN = "intact", "broken"
_PICTURE_NAME = re.compile(r"[0-9a-f]{32}\.(png|jpg)")
ASK = "Which picture looks more realistic?"
INTRO = """\
You will see pairs of pictures that were made from the same layout. Choose the one that looks more realistic to you. \
There is no right or wrong, and no time limit.

Your choices and the time of each are stored under a random number, and nothing else about you. You may stop at any \
time by closing the page."""


@dataclass(frozen=True)
class Question:
    """Two pictures of one label map.

    Args:
        id: random to whoever does not hold ``study.json``.
        map: name of the label map.
        label: file of the coloured label map.
        systems: who drew the two pictures; of an attention check, ``INTACT`` and ``BROKEN``.
        pictures: their files, in the same order.
        check: whether it is an attention check.
    """

    id: str
    map: str
    label: str
    systems: tuple[str, str]
    pictures: tuple[str, str]
    check: bool = False


@dataclass(frozen=True)
class Screen:
    """A question as a participant sees it; ``flipped``: its second picture stands on the left."""

    question: Question
    flipped: bool

    @property
    def sides(self) -> tuple[str, str]:
        """Files of the left and the right picture."""
        first, second = self.question.pictures
        return (second, first) if self.flipped else (first, second)

    def chosen(self, side: str) -> int:
        """Which of the question's two pictures stands on a side, 0 or 1."""
        return int((side == "right") != self.flipped)


@dataclass(frozen=True)
class Study:
    """Everything that ``study.json`` holds.

    Args:
        id: names the study to participants' browsers; says nothing of the systems.
        secret: what blinded names and orders are drawn from; whoever knows it knows which picture is whose.
        ask, intro: what participants read.
        systems: name, kind ("checkpoint" or "pictures"), source and SHA-256 of each.
        questions: all of them, attention checks last.
        pictures: file -> its SHA-256.
        facts: seed, size, versions.
    """

    id: str
    secret: str
    ask: str
    intro: str
    systems: list[dict[str, Any]]
    questions: list[Question]
    pictures: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def by_id(self) -> dict[str, Question]:
        return {question.id: question for question in self.questions}

    @property
    def names(self) -> list[str]:
        """Names of the systems."""
        return [system["name"] for system in self.systems]

    def to_dict(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, value: Any, source: str) -> Study:
        """Plain values back to a study; raises DataError for others."""
        try:
            if value["format"] != FORMAT:
                raise DataError(
                    f"{source}: format {value['format']}, this version of clade reads {FORMAT}. Build it anew."
                )
            questions = [
                Question(**{**q, "systems": tuple(q["systems"]), "pictures": tuple(q["pictures"])})
                for q in value["questions"]
            ]
            study = cls(**{**{k: v for k, v in value.items() if k != "format"}, "questions": questions})
            shown = {name for q in questions for name in (q.label, *q.pictures)}
            if {*study.pictures} != shown or not all(map(_PICTURE_NAME.fullmatch, shown)):
                raise DataError(f"{source}: its pictures are not those of its questions. Build it anew.")
            return study
        except (KeyError, TypeError) as error:
            raise DataError(f"{source}: is not what `clade study build` writes ({error!r}). Build it anew.") from error


def blinded(secret: str, *parts: Any, digits: int = 32) -> str:
    """A name that tells nothing of ``parts`` to whoever does not know the secret (HMAC-SHA-256)."""
    return hmac.new(secret.encode(), json.dumps(parts).encode(), hashlib.sha256).hexdigest()[:digits]


def plan(study: Study, number: int) -> list[Screen]:
    """Order and sides for participant ``number`` (0, 1, 2, ...), always the same for a study and a number.

    Both are random. Within a participant, each system of a pair stands on the left in half of the pair's questions (but
    for an odd one out). Participants 2k and 2k + 1 see the same in opposite order with sides exchanged, so that over
    both each question has each side once, and the mean of its two places is the middle.
    """
    rng = random.Random(f"{study.secret} participant {number // 2}")
    groups: dict[tuple[str, str], list[Question]] = {}
    for question in study.questions:
        groups.setdefault(question.systems, []).append(question)
    screens = []
    for questions in groups.values():
        start = rng.randrange(2)
        flips = [bool((k + start) % 2) for k in range(len(questions))]
        rng.shuffle(flips)
        screens += [Screen(question, flipped) for question, flipped in zip(questions, flips, strict=True)]
    rng.shuffle(screens)
    return [Screen(s.question, not s.flipped) for s in reversed(screens)] if number % 2 else screens


def write_study(study: Study, folder: Path) -> None:
    with atomic_path(folder / STUDY) as temporary:
        temporary.write_text(json.dumps(study.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Raises DataError for a file that is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}).") from error


def read_study(folder: str | Path) -> Study:
    """The study in a folder that `clade study build` made.

    Raises:
        DataError: there is none, it is not finished, damaged, or lacks pictures.
    """
    folder = Path(folder)
    if not (folder / STUDY).is_file():
        raise DataError(
            f"{folder}: holds no {STUDY}, so no study, or one whose building was stopped. Run `clade study build` "
            f"with --out {folder} (again)."
        )
    study = Study.from_dict(read_json(folder / STUDY), str(folder / STUDY))
    missing = [name for name in study.pictures if not (folder / PUBLIC / PICTURES / name).is_file()]
    if missing:
        raise DataError(
            f"{folder / PUBLIC / PICTURES}: {len(missing)} pictures of the study are not there ({missing[0]} first). "
            "Run the `clade study build` that made it again; it draws only those."
        )
    return study


def screens_to_json(screens: Sequence[Screen]) -> list[dict[str, str]]:
    """What a participant's browser gets to know of screens."""
    return [
        {"question": s.question.id, "label": s.question.label, "left": s.sides[0], "right": s.sides[1]} for s in screens
    ]
