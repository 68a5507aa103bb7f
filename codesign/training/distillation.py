"""Knowledge distillation: a network learns from another one's soft answers as well as from the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Distillation:
    """teacher: a module with the same classes, used in evaluation mode; usually the network before the rewrite.

    temperature: divides the logits before softmax; the higher, the more the small probabilities say. soft_share: weight
    of the teacher's answers in the loss, the labels have the rest.
    """

    teacher: Any
    temperature: float = 4.0
    soft_share: float = 0.7

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, not {self.temperature:g}")
        if not 0 <= self.soft_share <= 1:
            raise ValueError(f"soft_share must lie in 0..1, not {self.soft_share:g}")


def distilled(hard_loss: Any, logits: Any, soft: Distillation, inputs: Any) -> Any:
    """(1 - s) hard_loss + s T^2 KL(teacher || student), both softened with temperature T, classes in the last axis.

    T^2 keeps the size of the soft gradients when T changes. Source: Hinton, Vinyals, Dean 2015 (arXiv:1503.02531),
    section 2.
    """
    import torch
    from torch.nn import functional

    with torch.no_grad():
        answers = soft.teacher(inputs)
    student = functional.log_softmax(logits / soft.temperature, dim=-1)
    teacher = functional.log_softmax(answers / soft.temperature, dim=-1)
    # The mean over samples, whatever stands between the batch and the classes.
    divergence = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(-1).mean()
    return (1 - soft.soft_share) * hard_loss + soft.soft_share * soft.temperature**2 * divergence
