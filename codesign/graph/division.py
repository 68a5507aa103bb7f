"""How an average pooling divides: by a shift, or by a multiplication and a shift; marked in the metadata of its node.

A division by 2^n is marked on the pooling. Any other is a Mul behind it, marked, with which floating point computes the
quotient an integer machine would get: the two are one operation, sum x multiplier >> shift.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import isclose, prod

import onnx_ir as ir

from codesign.graph.graph import constant_of
from codesign.graph.operators import Pool, is_operator
from codesign.vocabulary import OperationKind

DIVISION = "codesign.division"
_ROUNDING = 1e-3  # of a factor stored as float16


@dataclass(frozen=True)
class Division:
    """sum x multiplier >> shift instead of sum / count; without a multiplier exact, count then is 2^shift."""

    count: int
    shift: int
    multiplier: int | None = None

    @classmethod
    def exact(cls, count: int) -> Division:
        """By a power of two."""
        return cls(count, count.bit_length() - 1)

    @classmethod
    def approximate(cls, count: int, bits: int) -> Division:
        """With the multiplier of so many bits nearest to 2^shift / count, zeros at its end left out."""
        shift = bits - 1 + (count - 1).bit_length()
        multiplier = round(Fraction(1 << shift, count))
        zeros = (multiplier & -multiplier).bit_length() - 1
        return cls(count, shift - zeros, multiplier >> zeros)

    @classmethod
    def marked(cls, node: ir.Node) -> Division | None:
        """What a node's mark says: `shift:6`, or `multiply:167,shift:13,count:49`; None without one."""
        text = node.metadata_props.get(DIVISION)
        if text is None:
            return None
        numbers = {key: int(number) for key, _, number in (part.partition(":") for part in text.split(","))}
        shift = numbers["shift"]
        return cls(numbers.get("count", 1 << shift), shift, numbers.get("multiply"))

    @property
    def mark(self) -> str:
        """What its node carries."""
        if self.multiplier is None:
            return f"shift:{self.shift}"
        return f"multiply:{self.multiplier},shift:{self.shift},count:{self.count}"

    @property
    def factor(self) -> float:
        """Its quotient over the true one."""
        return (self.multiplier or 1) * self.count / (1 << self.shift)


def written_behind(pool: Pool) -> ir.Node | None:
    """The Mul behind a pooling that was written as its division, whether or not the window is still the same."""
    readers = [use.node for use in pool.y.uses()]
    return next((reader for reader in readers if _is_as_marked(reader)), None)


def is_part_of_pooling(node: ir.Node) -> bool:
    """Whether a node is the division of the average pooling before it, as that pooling is now."""
    source = node.inputs[0] if _is_as_marked(node) else None
    producer = source.producer() if source is not None else None
    pool, division = Pool.of(producer) if producer is not None else None, Division.marked(node)
    if pool is None or division is None or pool.kind is not OperationKind.AVERAGE_POOL:
        return False
    return division.count == prod(pool.kernel)


def _is_as_marked(node: ir.Node) -> bool:
    """Whether a node is a marked Mul by the factor of its mark: a later rewrite may have changed that."""
    division = Division.marked(node) if is_operator(node, "Mul") else None
    factor = constant_of(node.inputs[1]) if division is not None else None
    if division is None or factor is None or factor.size != 1:
        return False
    return isclose(float(factor.reshape(())), division.factor, rel_tol=_ROUNDING)
