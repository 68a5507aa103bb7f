"""fold-scale-shift: multiplications and additions of constants go into the weights around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, node_name, shape_of
from codesign.graph.operators import MatMul, is_operator
from codesign.rewriting.affine import Affine, narrowed, without_leading_ones
from codesign.rewriting.affine_walk import Stretch, apply, fold_backwards, fold_forwards, replace, walked_forward
from codesign.rewriting.edit import insert_before, only_reader
from codesign.rewriting.graph_pass import Applied, Declined, Effect, GraphPass, Outcome, PassContext
from codesign.rewriting.linear import CannotFoldError

_OPERATORS = ("Mul", "Div", "Add", "Sub", "Neg")


@dataclass(frozen=True)
class FoldScaleShift(GraphPass):
    """Folds Mul, Div, Add, Sub and Neg with constants into the weights of the linear operators around them.

    before:  x -> Sub(mean) -> Div(std) -> Conv(w, b) -> Mul(gamma) -> y
    after:   x -> Conv(w', b') -> y

        w' = gamma w / std                           b' = gamma (b - w mean / std)

    Exact: operators in a row compute s x + t with constant s and t (composed in float64), which goes into a linear
    operator before, s (w x + b) + t = (s w) x + (s b + t), or into all that read the result,
    w (s x + t) + b = (w s) x + (w t + b). In between may stand reshapes, transpositions, splits, concatenations and
    additions of constants; for a scale alone also averages, resizing, padding with zeros and products with another
    tensor, where the scale does not vary along what they mix.

    Before a convolution that pads with zeros only the scale is folded, w (s x + t) = (w s) (x + t / s), and an
    addition stays: the padded zeros would have to be -t / s. What meets no weights, such as the scale between a
    normalisation and a softmax, stays as at most one Mul and one Add; a scale of 1 and a shift of 0 are removed. The
    addition behind a MatMul is its bias and stays.

    It declines where a result is used elsewhere too, and where constants vary along other axes than the channels.

    Source: distributivity. LayerScale: Touvron et al., "Going Deeper with Image Transformers", ICCV 2021, section 2.
    """

    name: ClassVar[str] = "fold-scale-shift"
    effect: ClassVar[Effect] = Effect.EXACT

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        """Fold until nothing folds any more: a fold can make room for the next."""
        outcomes: list[Outcome] = []
        while True:
            sweep = [_fold(graph, chain) for chain in _chains(graph)]
            applied = [outcome for outcome in sweep if isinstance(outcome, Applied)]
            outcomes += applied
            if not applied:
                return outcomes + sweep


@dataclass(frozen=True)
class _Chain:
    """Operators in a row, each the only reader of the one before, and what they compute together."""

    stretch: Stretch
    affine: Affine

    @property
    def names(self) -> str:
        """`Sub_0, Div_1`."""
        return ", ".join(map(node_name, self.stretch.nodes))

    def followed_by(self, later: _Chain) -> _Chain | None:
        """Both as one, as long as the constants of both vary along the same axis."""
        axes = self.affine.axes | later.affine.axes
        if len(axes) > 1 and self.affine.axes != later.affine.axes:
            return None
        return _Chain(
            Stretch((*self.stretch.nodes, *later.stretch.nodes), self.stretch.index), self.affine.then(later.affine)
        )


def _chains(graph: Graph) -> list[_Chain]:
    """The longest chains, in order."""
    chains: dict[ir.Node, _Chain] = {}
    for node in graph.nodes:
        link = _link(node)
        if link is None:
            continue
        before = chains.get(producer) if (producer := link.stretch.x.producer()) is not None else None
        alone = before is not None and only_reader(link.stretch.x) is node
        joined = before.followed_by(link) if before is not None and alone else None
        if joined is not None and producer is not None:
            del chains[producer]
        chains[node] = joined or link
    return list(chains.values())


def _link(node: ir.Node) -> _Chain | None:
    """One operator with a finite constant as a chain, or None for everything else, a MatMul's bias among it."""
    result = node.outputs[0]
    if not is_operator(node, *_OPERATORS) or result.dtype is None or not result.dtype.is_floating_point():
        return None
    constants = [constant_of(value) for value in node.inputs]
    tensors = [index for index, constant in enumerate(constants) if constant is None]
    x = node.inputs[tensors[0]] if len(tensors) == 1 else None
    if x is None or shape_of(x) != shape_of(result):
        return None
    constant = next((constant for constant in constants if constant is not None), np.ones(()))
    affine = _computed(node.op_type, tensors[0], _aligned(constant, len(shape_of(x))))
    # An infinite constant (the mask of an attention) is no shift that weights could hold.
    finite = affine is not None and np.isfinite(affine.scale).all() and np.isfinite(affine.shift).all()
    if affine is None or not finite or _is_bias(node, x, affine):
        return None
    return _Chain(Stretch((node,), tensors[0]), affine)


def _aligned(constant: np.ndarray, rank: int) -> np.ndarray:
    """A constant as it broadcasts to a tensor of this rank, in float64."""
    return narrowed(constant.astype(np.float64).reshape((1,) * (rank - constant.ndim) + constant.shape))


def _computed(op_type: str, index: int, constant: np.ndarray) -> Affine | None:
    """What an operator with its tensor at `index` computes; None for a division by the tensor."""
    one, zero = np.ones([1] * constant.ndim), np.zeros([1] * constant.ndim)
    match op_type, index:
        case "Mul", _:
            return Affine(constant, zero)
        case "Add", _:
            return Affine(one, constant)
        case "Sub", 0:
            return Affine(one, -constant)
        case "Sub", _:
            return Affine(-one, constant)
        case "Div", 0:
            with np.errstate(divide="ignore"):
                return Affine(1.0 / constant, zero)
        case "Neg", _:
            return Affine(-one, zero)
        case _:
            return None


def _is_bias(node: ir.Node, x: ir.Value, affine: Affine) -> bool:
    """Whether it adds a MatMul's bias: a matrix product has no other place for one."""
    product = MatMul.of(producer) if (producer := x.producer()) is not None else None
    is_dense = product is not None and product.has_constant_weights
    return is_dense and node.op_type == "Add" and affine.axes <= {len(shape_of(x)) - 1}


def _fold(graph: Graph, chain: _Chain) -> Outcome:
    if chain.affine.is_identity:
        return _without(graph, chain)
    try:
        return Applied(chain.names, fold_backwards(graph, chain.stretch, chain.affine))
    except CannotFoldError as error:
        backwards = str(error)
    try:
        return Applied(chain.names, fold_forwards(graph, chain.stretch, chain.affine))
    except CannotFoldError as error:
        forwards = str(error)
    detail = _with_the_shift_left(graph, chain) or _shortened(graph, chain)
    return (
        Applied(chain.names, detail)
        if detail
        else Declined(chain.names, f"backwards: {backwards}; forwards: {forwards}")
    )


def _without(graph: Graph, chain: _Chain) -> Outcome:
    """The chain taken out, since it computes nothing."""
    x = chain.stretch.x
    if chain.stretch.y.is_graph_output() and (x.producer() is None or x.is_graph_output()):
        return Declined(chain.names, "it changes nothing, but an output of the graph needs a node that makes it")
    replace(graph, chain.stretch, x)
    return Applied(chain.names, "removed, since it changes nothing")


def _with_the_shift_left(graph: Graph, chain: _Chain) -> str:
    """Only the scale of several operators folded forwards, s x + t = s (x + t / s); empty when that is not possible."""
    affine, stretch = chain.affine, chain.stretch
    if len(stretch.nodes) < 2 or not affine.scale.all() or (affine.scale == 1.0).all():
        return ""
    try:
        walk = walked_forward(stretch.y, affine.only_scale())
    except CannotFoldError:
        return ""
    apply(graph, walk)
    replace(graph, stretch, _inserted(graph, stretch, "Add", stretch.x, affine.shift / affine.scale))
    return f"the scale {walk.into}; an Add stays for the shift"


def _shortened(graph: Graph, chain: _Chain) -> str:
    """The chain as at most one Mul and one Add; empty when it is that already."""
    stretch = chain.stretch
    steps = {"Mul": chain.affine.scale} if (chain.affine.scale != 1.0).any() else {}
    steps |= {"Add": chain.affine.shift} if chain.affine.shift.any() else {}
    if len(steps) >= len(stretch.nodes):
        return ""
    value, name = stretch.x, stretch.y.name
    for op_type, constant in steps.items():
        value = _inserted(graph, stretch, op_type, value, constant)
    replace(graph, stretch, value)
    value.name = name
    return f"{len(stretch.nodes)} operators became {' and '.join(steps)}"


def _inserted(graph: Graph, stretch: Stretch, op_type: str, value: ir.Value, constant: np.ndarray) -> ir.Value:
    """value combined with a constant, in front of the stretch."""
    dtype = value.dtype
    assert dtype is not None
    array = without_leading_ones(constant).astype(dtype.numpy())
    first = stretch.nodes[0]
    return insert_before(graph, first, op_type, [value, array], shape_of(value), role=op_type.lower())
