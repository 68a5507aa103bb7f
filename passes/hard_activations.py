"""hard-activations: smooth activations become piecewise linear ones, which need neither exp nor erf."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, node_name
from codesign.graph.marks import ActivationGroup
from codesign.graph.operators import is_operator
from codesign.hardware.profile import HardwareProfile
from codesign.rewriting.activations import activations_of, swish_slope
from codesign.rewriting.building import Builder
from codesign.rewriting.edit import remove_unread
from codesign.rewriting.graph_pass import Applied, Declined, Effect, GraphPass, Outcome, PassContext
from codesign.vocabulary import OperationKind

_WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_GELU_SLOPE = 1.702  # GELU is within 0.021 of x sigmoid(1.702 x)
_SMOOTH = ("Sigmoid", "Tanh", "Swish", "Gelu")
_UNIT_SLOPE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class HardActivations(GraphPass):
    """Replaces sigmoid, tanh, SiLU and GELU by piecewise linear functions with the same limits.

    before:  x -> Sigmoid -> Mul(x, .) -> y            SiLU, as exporters write it
    after:   x -> HardSwish -> y                       one operator, no exp

        function                    becomes                               differs by at most
        sigmoid(x)                  HardSigmoid: clip(x / 6 + 1/2, 0, 1)        0.0692
        x sigmoid(x)                HardSwish: x clip(x / 6 + 1/2, 0, 1)        0.1423
        x sigmoid(a x)              x HardSigmoid(a x)                          0.1423 / a
        tanh(x)                     clip(x, -1, 1)                              0.2385
        GELU, gelu=quick            x HardSigmoid(1.702 x)                      0.0688
        GELU, gelu=hard-swish       HardSwish                                   0.2954

    Not exact: those are the largest differences at one activation over all x. What they do to the answers of a
    network only data shows; networks trained with the hard form (MobileNetV3) lose nothing, others want fine-tuning.

    Activations are found by the numbers their operators give, in whatever order they were written; of GELU the form by
    erf, the one by tanh and the operator Gelu. `quick` is the default: GELU is nearer to x sigmoid(1.702 x) than to
    x sigmoid(x), and two operators take the place of five; `hard-swish` is one. Run before fuse-activation the two are
    one layer. clip(2/3 x, -1, 1) would be within 0.139 of tanh, but is two operators, and its slope at 0 is another.

    A machine that does neither HardSwish nor HardSigmoid gets x HardSigmoid(x), or clip(x / 6 + 1/2, 0, 1) as a
    multiplication, an addition and Clip (`form=clip`); one that does not do those either keeps what it has.

    Stay as they are: a sigmoid or tanh from which an output of the network is computed without weights in between
    (probabilities, boxes), unless `outputs`; Softplus, from which its clip form, Relu, is off by 0.69 at 0; Mish; an
    Erf that is no GELU.

    Source: HardSwish, HardSigmoid: Howard et al., Searching for MobileNetV3, ICCV 2019, arXiv:1905.02244, section 5.2;
    1.702: Hendrycks and Gimpel, arXiv:1606.08415.
    """

    name: ClassVar[str] = "hard-activations"
    effect: ClassVar[Effect] = Effect.APPROXIMATE

    gelu: Annotated[Literal["quick", "hard-swish", "keep"], "what GELU becomes"] = "quick"
    form: Annotated[
        Literal["auto", "clip"], "auto: HardSwish and HardSigmoid where the machine does them; clip: Clip"
    ] = "auto"
    gates: Annotated[bool, "also sigmoids that multiply another tensor (squeeze-excite)"] = True
    outputs: Annotated[bool, "also a sigmoid or tanh from which an output is computed without weights between"] = False

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        """Every smooth activation once, whichever nodes it is written with."""
        groups = [place.group for place in activations_of(graph) if place.group is not None]
        members = {node for group in groups for node in group.nodes}
        lonely = [node for node in graph.nodes if is_operator(node, "Erf") and node not in members]
        machine = _Machine(context.profile, self.form)
        outcomes = [outcome for group in groups if (outcome := self._hardened(graph, group, machine)) is not None]
        return outcomes + [Declined(node_name(node), "this Erf is part of no function known here") for node in lonely]

    def _hardened(self, graph: Graph, group: ActivationGroup, machine: _Machine) -> Outcome | None:
        """None for what is piecewise linear already."""
        reason = self._kept(group)
        if not reason and group.operator in _SMOOTH:
            slope = self._slope(group)
            reason = machine.lacks(group.operator, slope)
            if not reason:
                detail = _write(Builder(graph, group.nodes[-1]), group, slope, machine)
                return Applied(node_name(group.nodes[-1]), f"{group.operator} became {detail}")
        return Declined(node_name(group.nodes[-1]), reason) if reason else None

    def _slope(self, group: ActivationGroup) -> float:
        """The a of HardSigmoid(a x)."""
        match group.operator:
            case "Gelu" if self.gelu == "quick":
                return _GELU_SLOPE
            case "Swish":
                slope = swish_slope(group)
                return 1.0 if abs(slope - 1) < _UNIT_SLOPE_TOLERANCE else slope
        return 1.0

    def _kept(self, group: ActivationGroup) -> str:
        """Why an activation stays, whatever the machine; or nothing."""
        match group.operator:
            case "Sigmoid" | "Tanh" if not self.outputs and _reaches_an_output(group.y):
                return (
                    "an output of the network is computed from it without weights in between (outputs=true replaces it)"
                )
            case "Sigmoid" if not self.gates and _is_gate(group.y):
                return "it is the gate of another tensor (gates=true replaces it)"
            case "Gelu" if self.gelu == "keep":
                return "GELU stays (gelu=keep)"
            case "Mish":
                return "Mish has no approximation here: HardSwish is off by 0.29 at 1.75"
            case "Softplus":
                return "Softplus has no approximation here: Relu, its clip form, is off by 0.69 at 0"
        return ""


@dataclass(frozen=True)
class _Machine:
    """Which operators may be written: those its vector unit does; all of them where no machine is given."""

    profile: HardwareProfile | None
    form: Literal["auto", "clip"]

    def does(self, operator: str) -> bool:
        """Whether it does a replacement's operator itself."""
        if self.form == "clip" and operator.startswith("Hard"):
            return False
        kind = OperationKind.ELEMENTWISE if operator in ("Add", "Mul") else OperationKind.ACTIVATION
        return self.profile is None or self.profile.runs(kind, operator)

    def lacks(self, operator: str, slope: float) -> str:
        """Why it cannot do what an activation would become, or nothing."""
        missing = [name for name in self._parts(operator, slope) if not self.does(name)]
        if not missing or self.profile is None:
            return ""
        return f"{self.profile.name} does not do what it would become: it lacks {', '.join(missing)}"

    def _parts(self, operator: str, slope: float) -> tuple[str, ...]:
        if operator == "Tanh":
            return ("Clip",)
        if operator != "Sigmoid" and slope == 1 and self.does("HardSwish"):
            return ()
        gate = ("HardSigmoid",) if self.does("HardSigmoid") else ("Mul", "Add", "Clip")
        return gate if operator == "Sigmoid" else tuple(dict.fromkeys((*gate, "Mul")))


def _write(builder: Builder, group: ActivationGroup, slope: float, machine: _Machine) -> str:
    """In place of the group; returns what was written."""
    if group.operator == "Tanh":
        _replace(builder, _clip(builder, group.x, -1.0))
        return "Clip to -1 ... 1"
    if group.operator != "Sigmoid" and slope == 1 and machine.does("HardSwish"):
        _replace(builder, builder.add("HardSwish", group.x))
        return "HardSwish"
    if machine.does("HardSigmoid"):
        gate, text = builder.add("HardSigmoid", group.x, alpha=slope / 6, beta=0.5), "HardSigmoid"
    else:
        scaled = builder.add("Mul", group.x, builder.number(slope / 6, group.x, "slope"))
        shifted = builder.add("Add", scaled, builder.number(0.5, group.x, "half"))
        gate, text = _clip(builder, shifted, 0.0), "HardSigmoid by Clip"
    if group.operator == "Sigmoid":
        _replace(builder, gate)
        return text
    _replace(builder, builder.add("Mul", group.x, gate))
    return f"x times {text} of {'x' if slope == 1 else f'{slope:.4g} x'}"


def _clip(builder: Builder, x: ir.Value, low: float) -> ir.Value:
    """To low ... 1."""
    return builder.add("Clip", x, builder.number(low, x, "low"), builder.number(1.0, x, "high"))


def _replace(builder: Builder, result: ir.Value) -> None:
    """In place of the builder's node and of what leads to it and has no other reader."""
    sources = list(builder.node.inputs)
    builder.replace(result)
    for source in sources:
        remove_unread(builder.graph, source)


def _is_gate(value: ir.Value) -> bool:
    """Whether all that reads a value multiplies it with another one that is no constant."""
    return all(
        is_operator(use.node, "Mul") and constant_of(use.node.inputs[1 - use.idx]) is None for use in value.uses()
    )


def _reaches_an_output(value: ir.Value) -> bool:
    """Whether an output of the network is computed from a value by nodes without weights."""
    return any(found.is_graph_output() for found in _without_weights(value))


def _without_weights(value: ir.Value) -> Iterator[ir.Value]:
    """The value and all that is computed from it up to the next operators with weights."""
    seen, waiting = {value}, [value]
    while waiting:
        current = waiting.pop()
        yield current
        readers = (use.node for use in current.uses() if not is_operator(use.node, *_WITH_WEIGHTS))
        following = {output for reader in readers for output in reader.outputs} - seen
        seen |= following
        waiting += following
