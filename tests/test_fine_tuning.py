"""Fine-tuning: the same bits every time, killed or not; distillation as published; a lossy rewrite repaired."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from codesign.errors import CodesignError
from codesign.training.distillation import Distillation, distilled
from codesign.training.fine_tuning import FineTuning, fine_tune

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
torch.set_num_threads(1)  # more only wait for each other on tensors this small

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "examples" / "digits"
SETTINGS = FineTuning(epochs=4, learning_rate=1e-2, seed=5)


class Stopped(Exception):
    """A run that ends where a kill would have ended it."""


class Batches:
    """Six batches of eight samples of three classes, drawn anew every epoch."""

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for _ in range(len(self)):
            labels = torch.randint(0, 3, (8,))
            yield torch.nn.functional.one_hot(labels, 4)[:, :, None] * 2.0 + torch.randn(8, 4, 5), labels


def network(seed: int = 1) -> Any:
    torch.manual_seed(seed)
    layers = torch.nn
    return layers.Sequential(
        layers.Conv1d(4, 8, 3), layers.BatchNorm1d(8), layers.Dropout(0.2), layers.Flatten(), layers.Linear(24, 3)
    )


def same(one: Any, other: Any) -> bool:
    """Whether all weights and statistics are the same bits."""
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_a_run_learns_and_repeats_bit_for_bit() -> None:
    first, second, other = network(), network(), network()
    losses = fine_tune(first, Batches(), SETTINGS)
    state = torch.random.get_rng_state()
    assert fine_tune(second, Batches(), SETTINGS) == losses
    assert torch.equal(torch.random.get_rng_state(), state)
    fine_tune(other, Batches(), FineTuning(epochs=4, learning_rate=1e-2, seed=6))
    assert same(first, second) and not same(first, other)
    assert len(losses) == 4 and losses[-1] < losses[0] / 2
    assert not first.training and not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("stop_at", [1, 6, 15, 24])
def test_a_stopped_run_ends_as_if_nothing_had_happened(stop_at: int, tmp_path: Path) -> None:
    def on_step(done: int, total: int, loss: float) -> None:
        assert total == 24
        if done == stop_at:
            raise Stopped

    whole, cut, resumed = network(), network(), network()
    soft = Distillation(network(2))
    losses = fine_tune(whole, Batches(), SETTINGS, distillation=soft)
    with pytest.raises(Stopped):
        fine_tune(cut, Batches(), SETTINGS, distillation=soft, checkpoint=tmp_path / "run.pt", on_step=on_step)
    torch.manual_seed(99)
    assert fine_tune(resumed, Batches(), SETTINGS, distillation=soft, checkpoint=tmp_path / "run.pt") == losses
    assert same(whole, resumed)
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


KILLED = """
import sys, time
from pathlib import Path
from codesign.training.fine_tuning import fine_tune
from tests.test_fine_tuning import SETTINGS, Batches, network
fine_tune(network(), Batches(), SETTINGS, checkpoint=Path(sys.argv[1]), on_step=lambda *_: time.sleep(0.2))
"""


def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.pt"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", KILLED, str(checkpoint)], cwd=ROOT, env=environment) as process:
        deadline = time.monotonic() + 120
        while not checkpoint.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    whole, resumed = network(), network()
    steps: list[int] = []
    fine_tune(whole, Batches(), SETTINGS)
    fine_tune(resumed, Batches(), SETTINGS, checkpoint=checkpoint, on_step=lambda done, total, loss: steps.append(done))
    assert same(whole, resumed)
    assert steps[0] > 6 and steps[-1] == 24


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.pt"
    fine_tune(network(), Batches(), SETTINGS, checkpoint=checkpoint)
    others: list[tuple[Any, FineTuning, Distillation | None]] = [
        (network(2), SETTINGS, None),
        (network(), FineTuning(epochs=5, learning_rate=1e-2, seed=5), None),
        (network(), SETTINGS, Distillation(network())),
    ]
    for module, settings, soft in others:
        with pytest.raises(CodesignError) as caught:
            fine_tune(module, Batches(), settings, distillation=soft, checkpoint=checkpoint)
        assert str(caught.value) == (
            f"{checkpoint}: belongs to another run: network, settings or teacher differ\n"
            "  hint: delete it, or name another file, to start afresh"
        )


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.pt"
    fine_tune(network(), Batches(), SETTINGS, checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(CodesignError, match="is no checkpoint, or a damaged one"):
        fine_tune(network(), Batches(), SETTINGS, checkpoint=checkpoint)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CodesignError, match=r"run\.pt: cannot be written: No such file or directory"):
        fine_tune(network(), Batches(), SETTINGS, checkpoint=tmp_path / "none" / "run.pt")


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    settings = FineTuning(learning_rate=1e30)
    with pytest.raises(CodesignError) as caught:
        fine_tune(network(), Batches(), settings, checkpoint=tmp_path / "run.pt")
    assert re.fullmatch(
        r"training, epoch \d: the loss is (nan|inf)\n  hint: lower the learning rate", str(caught.value)
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: FineTuning(epochs=0), "epochs must be at least 1, not 0"),
        (lambda: FineTuning(learning_rate=-1), "learning_rate must be positive, not -1"),
        (lambda: Distillation(None, temperature=0), "temperature must be positive, not 0"),
        (lambda: Distillation(None, soft_share=1.5), "soft_share must lie in 0..1, not 1.5"),
    ],
)
def test_wrong_settings(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        wrong()


def test_the_soft_loss_is_the_published_one() -> None:
    """Cross-entropy with the softened teacher less the teacher's entropy, in numpy, times T squared."""
    random = np.random.default_rng(0)
    logits, answers = random.standard_normal((2, 5, 7))

    def soften(values: np.ndarray) -> np.ndarray:
        powers = np.exp(values / 3)
        return powers / powers.sum(1, keepdims=True)

    p, q = soften(answers), soften(logits)
    expected = 0.4 * 2.5 + 0.6 * 3**2 * (p * np.log(p / q)).sum(1).mean()
    soft = Distillation(lambda inputs: torch.from_numpy(answers), temperature=3, soft_share=0.6)
    assert float(distilled(torch.tensor(2.5), torch.from_numpy(logits), soft, None)) == pytest.approx(expected)


def test_only_the_student_learns() -> None:
    teacher, untouched = network(2).train(), network(2)
    with_teacher, without = network(), network()
    fine_tune(with_teacher, Batches(), SETTINGS, distillation=Distillation(teacher))
    fine_tune(without, Batches(), SETTINGS)
    assert same(teacher, untouched) and not same(with_teacher, without)


# ---- the example


def finetune(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    command = [sys.executable, str(DIGITS / "finetune.py"), *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_ten_epochs_repair_channels_rounded_down(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    repaired = tmp_path / "repaired.onnx"
    done = finetune("--distill", "--output", str(repaired))
    assert done.returncode == 0, done.stderr
    original, rounded, trained = (int(right) for right in re.findall(r"(\d+)/360 right", done.stdout))
    assert original >= 355 and rounded < 180 and trained >= original - 4
    assert re.findall(r"([\d,]+) parameters", done.stdout) == ["88,098", "42,618", "42,618"]
    with np.load(DIGITS / "heldout.npz") as heldout:
        images, labels = heldout["image"], heldout["label"]
    session = onnxruntime.InferenceSession(repaired, providers=["CPUExecutionProvider"])
    logits = np.concatenate([session.run(["logits"], {"image": image[None]})[0] for image in images])
    assert int((logits.argmax(1) == labels).sum()) == trained


def test_the_example_asks_data_which_channels_go() -> None:
    pytest.importorskip("sklearn")
    data = DIGITS / "calibration.npz"
    done = finetune("--epochs", "1", "--passes", f"round-channels{{mode=down,criterion=taylor,data={data}}}")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"([\d,]+) parameters", done.stdout) == ["88,098", "42,618", "42,618"]


def test_the_example_says_what_is_wrong() -> None:
    pytest.importorskip("sklearn")
    done = finetune("--passes", "round-chanels")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == [
        "--passes: no pass or pipeline is called round-chanels",
        "  hint: did you mean round-channels?",
    ]
