"""Votes of a study: from the server's answers, and from files that participants sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clade.errors import DataError
from clade.tools.study.answers import Answers
from clade.tools.study.study import ANSWERS, Study, read_json

_LARGEST = 8 << 20  # bytes of a file that a participant sent


@dataclass(frozen=True)
class Vote:
    """One answer.

    Args:
        participant: number on the server, or the random name in a file.
        question: its id.
        chosen: 0 or 1, which of the question's two pictures.
        side: where that stood, "left" or "right".
        ms: time that it took.
    """

    participant: str
    question: str
    chosen: int
    side: str
    ms: int


def read_votes(folder: Path, study: Study, files: Iterable[str | Path] = ()) -> list[Vote]:
    """All votes there are.

    Raises:
        DataError: a file of another study, one that is no answers file, two files in which one participant answers
            differently.
    """
    votes = []
    if (folder / ANSWERS).is_file():
        rows = Answers(folder / ANSWERS, study).rows()
        votes += [Vote(str(row.participant), row.question, row.chosen, row.side, row.ms) for row in rows]
        unknown = next((vote for vote in votes if vote.question not in study.by_id), None)
        if unknown is not None:
            raise DataError(f"{folder / ANSWERS}: answers a question that the study does not have. Is it damaged?")
    sent: dict[tuple[str, str], tuple[Vote, Path]] = {}
    for path in map(Path, files):
        for vote in _sent(path, study):
            earlier, source = sent.setdefault((vote.participant, vote.question), (vote, path))
            if earlier != vote:  # the same file twice, or a longer one of the same participant, is no harm
                raise DataError(
                    f"{path}: participant {vote.participant} answers question {vote.question} otherwise than in "
                    f"{source}. Leave one of the files out."
                )
    return votes + [vote for vote, _ in sent.values()]


def _sent(path: Path, study: Study) -> list[Vote]:
    if path.is_file() and path.stat().st_size > _LARGEST:
        raise DataError(f"{path}: {path.stat().st_size} bytes; a file of answers has at most {_LARGEST}.")
    value = read_json(path)
    if not isinstance(value, Mapping) or not {"study", "participant", "answers"} <= {*value}:
        raise DataError(f"{path}: is not a file of answers, as the study's page gives them.")
    if value["study"] != study.id:
        raise DataError(f"{path}: answers another study. Leave it out.")
    participant = value["participant"]
    if not isinstance(participant, str) or not 1 <= len(participant) <= 64 or not isinstance(value["answers"], list):
        raise DataError(f"{path}: is not a file of answers, as the study's page gives them.")
    votes = [_vote(path, study, participant, answer) for answer in value["answers"]]
    if len({vote.question for vote in votes}) < len(votes):
        raise DataError(f"{path}: answers a question twice. Leave it out, or ask the participant for it again.")
    return votes


def _vote(path: Path, study: Study, participant: str, answer: Any) -> Vote:
    try:
        question = study.by_id[answer["question"]]
        chosen = question.pictures.index(answer["chosen"])
        side, ms = answer["side"], answer["ms"]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: holds an answer that the study's page cannot have given ({answer!r:.200})."
        ) from error
    if side not in ("left", "right") or type(ms) is not int or ms < 0:
        raise DataError(f"{path}: holds an answer that the study's page cannot have given ({answer!r:.200}).")
    return Vote(f"file:{participant}", question.id, chosen, side, ms)
