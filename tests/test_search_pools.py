"""Pools: one after another, in processes and on Ray candidates end in the same bits, also when workers are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codesign.errors import CodesignError
from codesign.networks.catalogue import catalogue
from codesign.search.candidate import Candidate, Pool, Task
from codesign.search.pools import ProcessPool, RayPool, SerialPool, died
from codesign.search.trial import Trials, trained_module
from codesign.searching import Means, pool_of
from tests.trial_parts import Deadly, Unloadable, candidate, halves, trials, write_distribution

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
ROOT = Path(__file__).resolve().parents[1]
CANDIDATES = tuple(candidate(width) for width in (2, 4, 6))
ROUNDS = (2, 4)
STEPS = 4  # of an epoch
Results = dict[str, tuple[float, ...]]
NO_SUCH_GENERATOR = "tinny: no such generator\n  hint: did you mean tiny?"
LAST = {"processes": ", at last of SIGKILL", "ray": ""}  # Ray does not say


@pytest.fixture(scope="module", autouse=True)
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on the path of this process and its workers, with the generator of the candidates."""
    folder = tmp_path_factory.mktemp("distribution")
    write_distribution(folder)
    catalogue.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder
    catalogue.cache_clear()


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    """What everybody must come to, and the folder with the checkpoints."""
    here = trials(tmp_path_factory.mktemp("serial"))
    return here.folder, both_rounds(SerialPool(here))


@pytest.fixture(scope="module")
def cluster(distribution: Path) -> Iterator[Any]:
    """Ray with two workers on this machine; they find what this process finds."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(distribution), str(ROOT)]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # workers give way to everything else; a busy machine starves them
        ray.init("local", num_cpus=2, object_store_memory=80 << 20, include_dashboard=False, log_to_driver=False)
        yield ray
        ray.shutdown()


def both_rounds(pool: Pool) -> Results:
    """Two rounds; the second without the first candidate. Accuracies by name."""
    found: Results = {}
    for last, survivors in zip(ROUNDS, (CANDIDATES, CANDIDATES[1:]), strict=True):
        for task, accuracies in pool.run([Task(one, last) for one in survivors]):
            assert task.last_epoch == len(accuracies) == last
            found[task.candidate.name] = accuracies
    return found


def deadly(folder: Path, kills: int) -> tuple[Trials, tuple[Path, ...]]:
    """Trials that are killed in their second epoch, `kills` times in all, and the files that say it happened."""
    markers = tuple(folder / f"killed{number}" for number in range(kills))
    return trials(folder / "checkpoints", Deadly(halves(), markers, before=STEPS + 2)), markers


def assert_same(folder: Path, found: Results, serial: tuple[Path, Results]) -> None:
    """The same accuracies, and weights bit for bit."""
    assert found == serial[1]
    for one in CANDIDATES:
        ours, theirs = (trained_module(where, one).state_dict() for where in (folder, serial[0]))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_candidates_differ(serial: tuple[Path, Results]) -> None:
    assert len(set(serial[1].values())) == len(CANDIDATES)


def test_processes_come_to_the_same_though_killed(serial: tuple[Path, Results], tmp_path: Path) -> None:
    here, markers = deadly(tmp_path, kills=1)
    with ProcessPool(here, workers=2) as pool:
        found = both_rounds(pool)
        assert len(pool._workers) == 2
        idle = pool._workers[0].process
        idle.kill()  # while it waits for the next round
        idle.join()
        [(_, again)] = pool.run([Task(CANDIDATES[0], 1)])
    assert again == found[CANDIDATES[0].name][:1]
    assert all(marker.exists() for marker in markers)
    assert_same(here.folder, found, serial)


def test_ray_comes_to_the_same_though_killed(cluster: Any, serial: tuple[Path, Results], tmp_path: Path) -> None:
    here, markers = deadly(tmp_path, kills=1)
    with RayPool(here) as pool:
        found = both_rounds(pool)
    assert cluster.is_initialized()  # it was there before, and stays
    assert all(marker.exists() for marker in markers)
    assert_same(here.folder, found, serial)


def test_a_folder_the_cluster_does_not_share_is_an_error(cluster: Any, tmp_path: Path) -> None:
    pool = RayPool(trials(tmp_path / "there"))
    pool._folder = tmp_path / "here"
    with pytest.raises(CodesignError) as caught:
        list(pool.run([Task(CANDIDATES[0], 1)]))
    assert str(caught.value) == (
        f"{tmp_path}/here/tiny-width=2-dropout=0.1.pt: tiny-width=2-dropout=0.1 is trained, but its checkpoint is not "
        "here\n  hint: give a folder that all machines of the cluster share"
    )


def test_what_ray_cannot_do_is_an_error(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(CodesignError, match="tiny-width=2-dropout=0.1: Ray does not finish it: .*not here"):
        list(RayPool(trials(tmp_path, Unloadable(halves(), (), before=0))).run([Task(CANDIDATES[0], 1)]))


def seed_and_width(trials: Trials, one: Candidate) -> tuple[int, object]:
    """Work that needs both of what it is given. It dies once where a file says so."""
    marker = trials.folder / f"dies-at-{one.name}"
    if marker.exists():
        marker.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return trials.seed, dict(one.arguments)["width"]


def refuse(trials: Trials, one: Candidate) -> None:
    raise CodesignError(one.name, "is refused", "take another")


@pytest.mark.parametrize("kind", ["serial", "processes", "ray"])
def test_other_work_than_training(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Every candidate once with what it makes, though a worker dies; an error is told as it was raised."""
    if kind == "ray":
        request.getfixturevalue("cluster")
    here = trials(tmp_path)
    if kind != "serial":
        (tmp_path / f"dies-at-{CANDIDATES[1].name}").touch()
    with pool_of(here, Means(2 if kind == "processes" else 1, kind == "ray")) as pool:
        found = dict(pool.each(seed_and_width, CANDIDATES))
        with pytest.raises(CodesignError, match=f"^{CANDIDATES[0].name}: is refused\n  hint: take another$"):
            list(pool.each(refuse, CANDIDATES[:1]))
    assert found == {one: (here.seed, dict(one.arguments)["width"]) for one in CANDIDATES}
    assert not any(tmp_path.glob("dies-at-*"))


@pytest.mark.parametrize("kind", ["processes", "ray"])
def test_errors_and_a_worker_that_always_dies(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A trial that fails is told at once, one that kills its worker is tried again."""
    if kind == "ray":
        request.getfixturevalue("cluster")
    markers = tuple(tmp_path / f"killed{number}" for number in range(9))
    here = trials(tmp_path, Deadly(halves(), markers, before=1))
    with ProcessPool(here, 1, retries=1) if kind == "processes" else RayPool(here, retries=1) as pool:
        assert failure(pool, replace(CANDIDATES[0], generator="tinny")) == NO_SUCH_GENERATOR
        assert not markers[0].exists()
        assert failure(pool, CANDIDATES[0]) == (
            f"tiny-width=2-dropout=0.1: its process died 2 times{LAST[kind]}\n"
            "  hint: is there memory enough? try fewer workers, or smaller batches"
        )
    assert markers[1].exists() and not markers[2].exists()


def test_errors_without_workers_are_the_same(tmp_path: Path) -> None:
    pool = SerialPool(trials(tmp_path))
    assert failure(pool, replace(CANDIDATES[0], generator="tinny")) == NO_SUCH_GENERATOR


def failure(pool: Pool, one: Candidate) -> str:
    with pytest.raises(CodesignError) as caught:
        list(pool.run([Task(one, 2)]))
    return str(caught.value)


def test_ray_is_asked_for_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CodesignError) as caught:
        RayPool(trials(tmp_path))
    assert str(caught.value) == "ray: Ray is not installed\n  hint: pip install codesign[ray]"


def test_data_that_cannot_go_to_a_process_say_so(tmp_path: Path) -> None:
    class Local(Deadly):
        """Nobody else can name this class."""

    pool = ProcessPool(trials(tmp_path, Local(halves(), (), before=99)), workers=1)
    with pytest.raises(CodesignError) as caught:
        list(pool.run([Task(CANDIDATES[0], 1)]))
    text = str(caught.value)
    assert text.startswith("data: cannot be given to another process: ") and "Local" in text
    assert text.endswith("\n  hint: use objects of classes and functions that a module defines, or no workers")


def test_how_a_process_died_is_said() -> None:
    one = CANDIDATES[0]
    assert str(died(one, 4, 1)).startswith(f"{one.name}: its process died 4 times, at last with exit code 1")
    assert "died 4 times\n" in str(died(one, 4))


RUN = """
import sys
from pathlib import Path
from codesign.search.candidate import Task
from codesign.search.pools import ProcessPool
from tests.trial_parts import candidate, trials

if __name__ == "__main__":
    pool = ProcessPool(trials(Path(sys.argv[1])), workers=1)
    for task, _ in pool.run([Task(candidate(2), 1), Task(candidate(4), 100000)]):
        print(pool._workers[0].process.pid, flush=True)
"""


def test_workers_end_with_the_one_they_work_for(
    distribution: Path, serial: tuple[Path, Results], tmp_path: Path
) -> None:
    """A search that is killed leaves nobody who trains on, and is taken up where it was."""
    script = tmp_path / "run.py"
    script.write_text(RUN, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(distribution), str(ROOT)])}
    command: Sequence[str] = [sys.executable, str(script), str(tmp_path / "run")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        wait_for(lambda: (tmp_path / "run" / f"{CANDIDATES[1].name}.pt").exists())
        assert alive(worker)
        process.send_signal(signal.SIGKILL)
    wait_for(lambda: not alive(worker))
    [(_, accuracies)] = SerialPool(trials(tmp_path / "run")).run([Task(CANDIDATES[1], 4)])
    assert accuracies == serial[1][CANDIDATES[1].name]


def alive(process: int) -> bool:
    """Whether a process runs; one that ended and that nobody asked about does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)
