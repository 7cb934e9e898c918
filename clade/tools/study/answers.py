"""Answers in SQLite: one row per participant and question, on the disk before anybody is told that it is saved."""

from __future__ import annotations

import contextlib
import datetime
import json
import secrets
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clade.errors import CladeError, DataError
from clade.tools.study.study import Screen, Study, plan

_SCHEMA = """
CREATE TABLE IF NOT EXISTS study (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS participants (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  token TEXT NOT NULL UNIQUE,
  plan TEXT NOT NULL,
  begun TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS answers (
  participant INTEGER NOT NULL REFERENCES participants (number),
  question TEXT NOT NULL,
  side TEXT NOT NULL CHECK (side IN ('left', 'right')),
  chosen INTEGER NOT NULL CHECK (chosen IN (0, 1)),
  ms INTEGER NOT NULL CHECK (ms >= 0),
  at TEXT NOT NULL,
  UNIQUE (participant, question)
);
"""
_PATIENCE = 30.0  # seconds that a writer waits for another


class UnknownParticipant(CladeError):
    """A token that no participant has."""


class UnknownQuestion(CladeError):
    """A question that the study does not have."""


class AnsweredOtherwise(CladeError):
    """A second, different answer to a question; the first one counts."""


@dataclass(frozen=True)
class Session:
    """Where a participant stands: questions in all, those answered, and the screens that are left."""

    total: int
    done: int
    screens: list[Screen]


@dataclass(frozen=True)
class Row:
    """One answer; ``chosen`` is 0 or 1, which of the question's two pictures."""

    participant: int
    question: str
    side: str
    chosen: int
    ms: int


class Answers:
    """The answers to one study, in a file that several processes may use at once.

    Raises:
        DataError: a file that holds answers to another study, or none.
    """

    def __init__(self, path: str | Path, study: Study) -> None:
        self.path, self.study = Path(path), study
        self._lock = threading.Lock()
        try:
            # One connection that stays: each last one that closes would fold the write-ahead log into the file.
            self._db = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
            weakref.finalize(self, self._db.close)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")  # saved means saved, also when the power fails
            self._db.execute("PRAGMA foreign_keys = ON")
            self._db.executescript(_SCHEMA)
            with self._transaction() as db:
                db.execute("INSERT INTO study SELECT ? WHERE NOT EXISTS (SELECT * FROM study)", (study.id,))
                owner = db.execute("SELECT id FROM study").fetchone()[0]
        except sqlite3.Error as error:
            raise DataError(
                f"{self.path}: cannot be used as a file of answers ({error}). Is it one, on a local disk?"
            ) from error
        if owner != study.id:
            raise DataError(f"{self.path}: holds the answers to another study. Move it to where that study lies.")

    def begin(self) -> str:
        """A new participant's token; the plan of what they see is kept."""
        token = secrets.token_urlsafe(24)
        with self._transaction() as db:
            number = db.execute(
                "INSERT INTO participants (token, plan, begun) VALUES (?, '', ?)", (token, _now())
            ).lastrowid
            assert number is not None
            screens = [[screen.question.id, screen.flipped] for screen in plan(self.study, number - 1)]
            db.execute("UPDATE participants SET plan = ? WHERE number = ?", (json.dumps(screens), number))
        return token

    def session(self, token: str) -> Session:
        """Where a participant stands; raises UnknownParticipant."""
        with self._lock:
            number, screens = self._participant(token)
            answered = {
                question
                for (question,) in self._db.execute("SELECT question FROM answers WHERE participant = ?", (number,))
            }
        left = [screen for screen in screens if screen.question.id not in answered]
        return Session(len(screens), len(screens) - len(left), left)

    def answer(self, token: str, question: str, side: str, ms: int) -> None:
        """Keep an answer; the same once more changes nothing.

        Raises:
            UnknownParticipant, UnknownQuestion: as they say.
            AnsweredOtherwise: there is another answer to this question, which stays.
        """
        with self._transaction() as db:
            number, screens = self._participant(token)
            screen = next((screen for screen in screens if screen.question.id == question), None)
            if screen is None:
                raise UnknownQuestion("There is no such question in this study. Reload the page.")
            db.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (number, question, side, screen.chosen(side), ms, _now()),
            )
            kept = db.execute(
                "SELECT side FROM answers WHERE participant = ? AND question = ?", (number, question)
            ).fetchone()[0]
        if kept != side:
            raise AnsweredOtherwise("This question was answered before, otherwise. The first answer counts.")

    def rows(self) -> list[Row]:
        """All answers, in the order in which they came."""
        with self._lock:
            found = self._db.execute("SELECT participant, question, side, chosen, ms FROM answers ORDER BY rowid")
            return [Row(*values) for values in found]

    def participants(self) -> int:
        """How many have begun."""
        with self._lock:
            return self._db.execute("SELECT COUNT(*) FROM participants").fetchone()[0]

    def _participant(self, token: str) -> tuple[int, list[Screen]]:
        found = self._db.execute("SELECT number, plan FROM participants WHERE token = ?", (token,)).fetchone()
        if found is None:
            raise UnknownParticipant("Nobody of that token takes part in this study. Reload the page to begin.")
        number, screens = found
        return number, [Screen(self.study.by_id[id], flipped) for id, flipped in json.loads(screens)]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
