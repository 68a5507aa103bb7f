"""The memory of a search: one SQLite file in the run's folder, from which a killed run goes on.

Everything is written in transactions as it becomes known, so whenever the run dies, what was written is whole. One
process writes; a lock on a file beside the database keeps others out.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codesign.errors import CodesignError, Problem
from codesign.search.candidate import Candidate
from codesign.search.resources import Resources
from codesign.search.tournament import Elimination

DATABASE, LOCK = "search.sqlite", "search.lock"
_OTHER_FOLDER = "give the same, or another folder with --output"
_VERSION = 1
_SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE candidates (
    name TEXT PRIMARY KEY, position INTEGER NOT NULL, generator TEXT NOT NULL, arguments TEXT NOT NULL,
    image TEXT NOT NULL) STRICT;
CREATE TABLE resources (candidate TEXT PRIMARY KEY REFERENCES candidates, figures TEXT NOT NULL) STRICT;
CREATE TABLE refusals (candidate TEXT PRIMARY KEY REFERENCES candidates, reason TEXT NOT NULL) STRICT;
CREATE TABLE groups (candidate TEXT PRIMARY KEY REFERENCES candidates, number INTEGER NOT NULL,
    place INTEGER NOT NULL, z_sum REAL NOT NULL) STRICT;
CREATE TABLE proxies (candidate TEXT PRIMARY KEY REFERENCES candidates, score REAL NOT NULL) STRICT;
CREATE TABLE accuracies (
    candidate TEXT NOT NULL REFERENCES candidates, epoch INTEGER NOT NULL, accuracy REAL NOT NULL,
    PRIMARY KEY (candidate, epoch)) STRICT;
CREATE TABLE eliminations (
    candidate TEXT PRIMARY KEY REFERENCES candidates, round INTEGER NOT NULL, epoch INTEGER NOT NULL,
    score REAL NOT NULL) STRICT;
CREATE TABLE champions (candidate TEXT PRIMARY KEY REFERENCES candidates, number INTEGER NOT NULL) STRICT;
"""


@dataclass(frozen=True)
class Grouped:
    """Where a candidate stands: its group and its place there (from 1, the lightest first), and its sum of Z-scores."""

    candidate: str
    group: int
    place: int
    z_sum: float


@dataclass(frozen=True)
class Store:
    """The database of one run. Its methods raise CodesignError when it cannot be read or written."""

    path: Path
    connection: sqlite3.Connection

    def begin(self, settings: Mapping[str, str], candidates: Sequence[Candidate]) -> None:
        """Write what the run is, or check that it is what was begun. Raises CodesignError naming what differs."""
        known = self.settings()
        if known:
            _refuse_others(self.path.parent, known, settings)
            if self.candidates() != tuple(candidates):
                raise CodesignError(str(self.path.parent), "was started with other candidates", _OTHER_FOLDER)
            return
        with self._writing():
            self.connection.executemany("INSERT INTO settings VALUES (?, ?)", settings.items())
            self.connection.executemany(
                "INSERT INTO candidates VALUES (?, ?, ?, ?, ?)",
                (
                    (one.name, position, one.generator, json.dumps(one.arguments), json.dumps(one.image))
                    for position, one in enumerate(candidates)
                ),
            )

    def settings(self) -> dict[str, str]:
        """By option; nothing before the run has begun."""
        return {str(name): str(value) for name, value in self._rows("SELECT name, value FROM settings")}

    def candidates(self) -> tuple[Candidate, ...]:
        """All of the run's space, in its order."""
        rows = self._rows("SELECT name, generator, arguments, image FROM candidates ORDER BY position")
        return tuple(
            Candidate(name, made_by, tuple((key, value) for key, value in json.loads(arguments)), _image(image))
            for name, made_by, arguments, image in rows
        )

    def resources(self) -> dict[str, Resources]:
        """By candidate, as far as they are known."""
        rows = self._rows("SELECT candidate, figures FROM resources")
        return {name: Resources(**json.loads(figures)) for name, figures in rows}

    def put_resources(self, name: str, resources: Resources) -> None:
        """Remember what a candidate needs."""
        self._put("INSERT INTO resources VALUES (?, ?)", [(name, json.dumps(asdict(resources)))])

    def refusals(self) -> dict[str, str]:
        """By candidate, why it does not fit the machine."""
        return dict(self._rows("SELECT candidate, reason FROM refusals"))

    def put_refusal(self, name: str, reason: str) -> None:
        """Remember that a candidate does not fit the machine."""
        self._put("INSERT INTO refusals VALUES (?, ?)", [(name, reason)])

    def groups(self) -> tuple[Grouped, ...]:
        """From the lightest candidate of the first group to the heaviest of the last."""
        return tuple(
            Grouped(*row)
            for row in self._rows("SELECT candidate, number, place, z_sum FROM groups ORDER BY number, place")
        )

    def put_groups(self, groups: Sequence[Grouped]) -> None:
        """Remember the groups; the same ones may be given again."""
        rows = [(one.candidate, one.group, one.place, one.z_sum) for one in groups]
        self._put("INSERT OR REPLACE INTO groups VALUES (?, ?, ?, ?)", rows)

    def proxies(self) -> dict[str, float]:
        """Scores of the first cut by candidate, as far as they are known."""
        return dict(self._rows("SELECT candidate, score FROM proxies"))

    def put_proxy(self, name: str, score: float) -> None:
        """Remember a score of the first cut."""
        self._put("INSERT INTO proxies VALUES (?, ?)", [(name, score)])

    def curves(self) -> dict[str, tuple[float, ...]]:
        """Accuracies from epoch 1 by candidate; candidates that were not trained are left out."""
        found: dict[str, tuple[float, ...]] = {}
        for name, accuracy in self._rows("SELECT candidate, accuracy FROM accuracies ORDER BY candidate, epoch"):
            found[name] = (*found.get(name, ()), accuracy)
        return found

    def put_curve(self, name: str, accuracies: Sequence[float]) -> None:
        """Remember accuracies from epoch 1. Raises CodesignError when they contradict those remembered."""
        known = self.curves().get(name, ())
        if tuple(accuracies[: len(known)]) != known:
            problem = f"{name} got other accuracies than before: the data, the program or the machine changed"
            raise CodesignError(str(self.path.parent), problem, "start afresh in another folder")
        rows = [(name, epoch, value) for epoch, value in enumerate(accuracies, 1) if epoch > len(known)]
        self._put("INSERT INTO accuracies VALUES (?, ?, ?)", rows)

    def eliminations(self) -> dict[str, Elimination]:
        """By candidate."""
        rows = self._rows("SELECT candidate, round, epoch, score FROM eliminations")
        return {row[0]: Elimination(*row) for row in rows}

    def put_eliminations(self, eliminations: Sequence[Elimination]) -> None:
        """Remember who left; the same ones may be given again."""
        rows = [(one.candidate, one.round, one.epoch, one.score) for one in eliminations]
        self._put("INSERT OR REPLACE INTO eliminations VALUES (?, ?, ?, ?)", rows)

    def champions(self) -> dict[str, int]:
        """Groups by champion; nothing before the run has ended."""
        return dict(self._rows("SELECT candidate, number FROM champions ORDER BY number"))

    def put_champions(self, champions: Mapping[str, int]) -> None:
        """Remember the champions, with which a run ends."""
        self._put("INSERT OR REPLACE INTO champions VALUES (?, ?)", list(champions.items()))

    def _put(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        with self._writing():
            self.connection.executemany(statement, rows)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction: all of it is written, or nothing."""
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            yield
            self.connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise CodesignError(str(self.path), f"cannot be written: {error}") from error
        finally:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        try:
            return list(self.connection.execute(query))
        except sqlite3.Error as error:
            raise _unreadable(self.path, error) from error


@contextmanager
def open_store(folder: Path) -> Iterator[Store]:
    """The store of a run, made where there is none, for one process at a time.

    Raises CodesignError for a folder another run writes to, or that holds other files, and for a damaged store.
    """
    _check_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    except OSError as error:
        raise CodesignError(str(folder), f"cannot be written: {error.strerror}", "choose another --output") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CodesignError(str(folder), "another search writes to it", "wait for its end, or end it") from error
        with _connected(folder / DATABASE) as store:
            yield store


@contextmanager
def read_store(folder: Path) -> Iterator[Store]:
    """The store of a run that was begun, to read it. Raises CodesignError where there is none."""
    if not (folder / DATABASE).is_file():
        raise CodesignError(str(folder), f"holds no {DATABASE}", "give the folder of a run of codesign search")
    with _connected(folder / DATABASE) as store:
        if not store.settings():
            raise CodesignError(str(folder), "its search has not begun", "start it again")
        yield store


@contextmanager
def _connected(path: Path) -> Iterator[Store]:
    try:
        connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    except sqlite3.Error as error:
        raise _unreadable(path, error) from error
    with closing(connection):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # A killed process loses nothing this way; a power cut may lose the last results, which are trained again.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            [(version,)] = connection.execute("PRAGMA user_version")
            if version == 0:
                connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
            elif version != _VERSION:
                raise CodesignError(str(path), f"is of version {version}; this codesign reads {_VERSION}")
        except sqlite3.Error as error:
            raise _unreadable(path, error) from error
        yield Store(path, connection)


def _check_folder(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not (folder / LOCK).exists():
        raise CodesignError(str(folder), "holds other files: not used", "choose another folder with --output")


def _refuse_others(folder: Path, known: Mapping[str, str], given: Mapping[str, str]) -> None:
    names = [name for name in {**known, **given} if known.get(name) != given.get(name)]
    problems = [
        Problem(str(folder), f"was started with {_said(name, known)}, not {_said(name, given)}") for name in names
    ]
    if problems:
        *first, last = problems
        raise CodesignError.of([*first, Problem(last.where, last.problem, _OTHER_FOLDER)])


def _said(name: str, settings: Mapping[str, str]) -> str:
    return f"{name} {settings[name]}" if settings.get(name) else f"no {name}"


def _image(text: str) -> tuple[int, int, int]:
    channels, rows, columns = json.loads(text)
    return channels, rows, columns


def _unreadable(path: Path, error: sqlite3.Error) -> CodesignError:
    return CodesignError(str(path), f"cannot be read as the store of a search: {error}")
