"""``clade study report``: what participants prefer, and how sure that is (Table 5 of the paper)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from clade.tools.study.statistics import Interval, binomial_test, bootstrap, wilson
from clade.tools.study.study import Study, read_study
from clade.tools.study.votes import Vote, read_votes


@dataclass(frozen=True)
class Preference:
    """Votes between two systems.

    Args:
        first, second: their names.
        votes, wins: votes in all, and those for ``first``.
        participants: how many voted.
        share: ``wins / votes``; None without votes, as are the others.
        wilson: 95 % interval of the share, as if all votes were independent.
        bootstrap: 95 % interval over participants drawn anew; None for fewer than 2 of them.
        p: of the two-sided exact binomial test against no preference, as if all votes were independent.
        map: the label map, where the votes of one question are counted.
    """

    first: str
    second: str
    votes: int
    wins: int
    participants: int
    share: float | None = None
    wilson: Interval | None = None
    bootstrap: Interval | None = None
    p: float | None = None
    map: str | None = None


@dataclass(frozen=True)
class Report:
    """What a study came to.

    Args:
        study: its id.
        participants: who gave an answer.
        failed: those of them who chose the broken picture in more attention checks than allowed.
        excluded: whether the votes of these are left out.
        unchecked: who has answered no attention check yet, among those whose votes count.
        unfinished: who has not answered everything, among those whose votes count.
        left: share of the counted votes for the picture on the left, which should be near one half.
        seconds: median time of a counted vote.
        pairs, questions: the preferences, by pair of systems and by question.
    """

    study: str
    participants: int
    failed: int
    excluded: bool
    unchecked: int
    unfinished: int
    left: float | None
    seconds: float | None
    pairs: list[Preference]
    questions: list[Preference]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def report(
    folder: str | Path,
    files: Iterable[str | Path] = (),
    *,
    keep_failed: bool = False,
    allowed: int = 0,
    seed: int = 0,
) -> Report:
    """Count the answers in a study's folder and in files that participants sent.

    Args:
        keep_failed: count the votes of those who failed the attention checks, too.
        allowed: attention checks that may be answered wrongly.
        seed: of the bootstrap.

    Raises:
        DataError: no study there, or files that are not answers to it.
    """
    study = read_study(folder)
    votes = read_votes(Path(folder), study, files)
    wrong = Counter(vote.participant for vote in votes if study.by_id[vote.question].check and vote.chosen == 1)
    failed = {participant for participant, count in wrong.items() if count > allowed}
    counted = [vote for vote in votes if keep_failed or vote.participant not in failed]
    answered = Counter(vote.participant for vote in counted)
    checked = {vote.participant for vote in counted if study.by_id[vote.question].check}
    cast = [vote for vote in counted if not study.by_id[vote.question].check]
    return Report(
        study=study.id,
        participants=len({vote.participant for vote in votes}),
        failed=len(failed),
        excluded=not keep_failed,
        unchecked=len({*answered} - checked) if any(question.check for question in study.questions) else 0,
        unfinished=sum(count < len(study.questions) for count in answered.values()),
        left=sum(vote.side == "left" for vote in cast) / len(cast) if cast else None,
        seconds=median(vote.ms for vote in cast) / 1000 if cast else None,
        pairs=_by_pair(study, cast, seed),
        questions=_by_question(study, cast),
    )


def _by_pair(study: Study, cast: Sequence[Vote], seed: int) -> list[Preference]:
    pairs: dict[tuple[str, str], list[Vote]] = {q.systems: [] for q in study.questions if not q.check}
    for vote in cast:
        pairs[study.by_id[vote.question].systems].append(vote)
    return [_preference(systems, votes, seed) for systems, votes in pairs.items()]


def _by_question(study: Study, cast: Sequence[Vote]) -> list[Preference]:
    questions: dict[str, list[Vote]] = {q.id: [] for q in study.questions if not q.check}
    for vote in cast:
        questions[vote.question].append(vote)
    return [_preference(study.by_id[id].systems, votes, None, study.by_id[id].map) for id, votes in questions.items()]


def _preference(
    systems: tuple[str, str], votes: Sequence[Vote], seed: int | None, map: str | None = None
) -> Preference:
    """Without a seed, no bootstrap: each participant has one vote in a question."""
    each = Counter(vote.participant for vote in votes)
    wins = Counter(vote.participant for vote in votes if vote.chosen == 0)
    total, won = len(votes), wins.total()
    if not total:
        return Preference(*systems, 0, 0, 0, map=map)
    interval = None if seed is None else bootstrap([wins[p] for p in each], list(each.values()), seed=seed)
    return Preference(
        *systems, total, won, len(each), won / total, wilson(won, total), interval, binomial_test(won, total), map
    )
