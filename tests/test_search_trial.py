"""One trial: it learns, and ends in the same bits however it is cut, killed, or moved to another process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codesign.errors import CodesignError
from codesign.networks.catalogue import catalogue
from codesign.search.candidate import Task
from codesign.search.data import Augmentation
from codesign.search.trial import PAPER, Training, accuracy, checkpoint_of, train, trained_module
from tests.trial_parts import SIDE, candidate, halves, trials, write_distribution

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
ONE = candidate(4)


@pytest.fixture(autouse=True)
def tiny_networks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("distribution")
    write_distribution(folder)
    monkeypatch.syspath_prepend(folder)
    catalogue.cache_clear()
    yield
    catalogue.cache_clear()


def same(one: Any, other: Any) -> bool:
    """Whether all weights and statistics are the same bits."""
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_a_trial_learns_and_its_accuracies_are_those_of_its_module(tmp_path: Path) -> None:
    here = trials(tmp_path)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    found = train(here, Task(ONE, 8))
    assert torch.equal(torch.random.get_rng_state(), state) and torch.get_num_threads() == threads
    assert len(found) == 8 and found[-1] > 0.9 > found[0]
    module = trained_module(tmp_path, ONE)
    assert not module.training
    assert accuracy(module, here.data.validation(SIDE, SIDE)) == found[-1]
    with torch.no_grad():
        right = module(torch.from_numpy(halves().held_out.images)).argmax(1).numpy() == halves().held_out.labels
    assert right.mean() == found[-1]


def test_a_trial_in_pieces_ends_in_the_same_bits(tmp_path: Path) -> None:
    whole, pieces = trials(tmp_path / "whole"), trials(tmp_path / "pieces")
    found = train(whole, Task(ONE, 5))
    assert [len(train(pieces, Task(ONE, last))) for last in (1, 3, 5)] == [1, 3, 5]
    assert train(pieces, Task(ONE, 5)) == found
    assert same(trained_module(whole.folder, ONE), trained_module(pieces.folder, ONE))
    assert train(whole, Task(ONE, 2)) == found[:2]  # what is asked for, though more is done
    assert [path.name for path in pieces.folder.iterdir()] == [f"{ONE.name}.pt"]


class Stopped(BaseException):
    """What Ctrl-C raises, say."""


@pytest.mark.parametrize("stop_at", [1, 4, 5, 11])
def test_a_stopped_trial_loses_an_epoch_at_most(stop_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    step = torch.optim.RMSprop.step

    def counted(*arguments: Any, **keywords: Any) -> Any:
        steps.append(1)
        if len(steps) == stop_at:
            raise Stopped
        return step(*arguments, **keywords)

    found = train(trials(tmp_path / "whole"), Task(ONE, 3))
    monkeypatch.setattr(torch.optim.RMSprop, "step", counted)
    cut = trials(tmp_path / "cut")
    with pytest.raises(Stopped):
        train(cut, Task(ONE, 3))
    assert train(cut, Task(ONE, 3)) == found
    assert len(steps) <= 12 + 4
    assert same(trained_module(tmp_path / "whole", ONE), trained_module(cut.folder, ONE))


def test_seed_candidate_data_and_settings_decide(tmp_path: Path) -> None:
    def weights(name: str, one: Any = ONE, **keywords: Any) -> Any:
        train(trials(tmp_path / name, **keywords), Task(one, 1))
        return trained_module(tmp_path / name, one)

    first = weights("first")
    assert same(first, weights("second"))
    unmoved = replace(halves(), augmentation=Augmentation())
    others: tuple[dict[str, Any], ...] = (
        {"seed": 2},
        {"data": halves(seed=4)},
        {"data": unmoved},
        {"training": Training(batch=16, learning_rate=2e-3, warm_up_epochs=0.5)},
        {"one": candidate(4, dropout=0.0)},
    )
    for number, other in enumerate(others):
        assert not same(first, weights(f"other{number}", **other))


@pytest.mark.parametrize("other", [{"seed": 2}, {"data": halves(seed=4)}, {"training": Training(batch=8)}])
def test_a_checkpoint_of_another_run_is_refused(other: dict[str, Any], tmp_path: Path) -> None:
    train(trials(tmp_path), Task(ONE, 1))
    with pytest.raises(CodesignError) as caught:
        train(trials(tmp_path, **other), Task(ONE, 2))
    assert str(caught.value) == (
        f"{checkpoint_of(tmp_path, ONE)}: belongs to another run: network, data, settings or seed differ\n"
        "  hint: delete it, or name another file, to start afresh"
    )


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    here = trials(tmp_path)
    train(here, Task(ONE, 1))
    left, others = tmp_path / f".{ONE.name}.pt.0123.unfinished", tmp_path / ".another.pt.0123.unfinished"
    left.write_bytes(b"half"), others.write_bytes(b"half")
    train(here, Task(ONE, 1))
    assert others.exists() and not left.exists()


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    train(trials(tmp_path), Task(ONE, 1))
    path = checkpoint_of(tmp_path, ONE)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CodesignError, match="is no checkpoint, or a damaged one"):
        train(trials(tmp_path), Task(ONE, 2))


def test_a_loss_that_is_no_number_counts_as_no_accuracy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    here = trials(tmp_path, training=Training(optimizer="sgd", batch=16, learning_rate=1e30, warm_up_epochs=0))
    assert train(here, Task(ONE, 3)) == (0.0, 0.0, 0.0)
    assert f"{ONE.name}: the loss is no number in epoch 1; its accuracy counts as 0" in caplog.messages


def test_networks_whose_code_needs_columns_last_are_trained_all_the_same(tmp_path: Path) -> None:
    viewing = replace(ONE, name="viewing", arguments=(*ONE.arguments, ("view", True)))
    module = trials_module(tmp_path, viewing)
    images = torch.rand(2, 1, SIDE, SIDE).to(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match="view"):
        module.to(memory_format=torch.channels_last)(images)
    assert len(train(trials(tmp_path), Task(viewing, 2))) == 2


def trials_module(folder: Path, one: Any) -> Any:
    """A candidate's module after one epoch."""
    train(trials(folder), Task(one, 1))
    return trained_module(folder, one)


def test_what_cannot_be_trained_says_so(tmp_path: Path) -> None:
    def error(**keywords: Any) -> str:
        with pytest.raises(CodesignError) as caught:
            train(trials(tmp_path), Task(candidate(**keywords), 1))
        return str(caught.value)

    assert error(width=4, channels=3) == "tiny-width=4-dropout=0.1: takes images of 3 channels; the data have 1"
    assert error(width=0) == "tiny-width=0-dropout=0.1: cannot be trained: ValueError: width must be positive"
    with pytest.raises(CodesignError, match=f"{checkpoint_of(tmp_path, ONE)}: there is no checkpoint of {ONE.name}"):
        trained_module(tmp_path, ONE)


def test_settings_are_checked() -> None:
    for wrong in ({"batch": 1}, {"learning_rate": 0}, {"decay": -1}, {"threads": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Training(**wrong)


def test_the_rate_grows_then_falls() -> None:
    settings = Training(learning_rate=0.1, decay=0.5, warm_up_epochs=2)
    assert [settings.rate(epochs) for epochs in (0, 1, 2, 3, 4)] == [0, 0.025, 0.025, 0.0125, 0.00625]
    assert Training(learning_rate=0.1, decay=0.5, warm_up_epochs=0).rate(1) == 0.05
    # EfficientNet's rate for batches of 4096 falls by 0.97 every 2.4 epochs.
    assert PAPER.rate(5 + 2.4) / PAPER.rate(5) == pytest.approx(0.97)
    assert PAPER.rate(5) == pytest.approx(0.256 * 100 / 4096 * 0.97 ** (5 / 2.4))
