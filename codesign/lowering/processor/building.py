"""A planned network as a fast library: kernels with the mapper's register blocks, held against the plan's MACs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from codesign.errors import DoesNotFitError, Problem
from codesign.graph.codes import is_quantize
from codesign.graph.graph import Graph
from codesign.graph.operators import Convolution, Gemm, view_of
from codesign.hardware.profile import HardwareProfile
from codesign.lowering.frontend import NetworkImporter
from codesign.lowering.integers.calls import integer_calls
from codesign.lowering.layers import identifier
from codesign.lowering.network import LoweredNetwork, lowered
from codesign.lowering.processor.integer_convolution import DEPTH, IntegerDepthwise
from codesign.lowering.processor.integer_network import IntegerSteps
from codesign.lowering.processor.loops import Tile
from codesign.lowering.processor.macs import mac_problems, macs_expected, macs_of_function
from codesign.lowering.processor.network import Best, MacKernel, ProcessorNetwork
from codesign.lowering.processor.steps import GraphStep, find_steps
from codesign.lowering.processor.tiles import lanes_of, tile_of
from codesign.lowering.targets import host_features
from codesign.planning.plan import Plan
from codesign.quantization.reading import integer_network

VNNI_LANES = 16


@dataclass(frozen=True)
class ProcessorBuild:
    """network: not yet built. kernels: by layer name, of layers with MACs; equal ones are one object's equals."""

    network: LoweredNetwork
    kernels: dict[str, MacKernel]


def as_mapped(kernel: MacKernel) -> Tile:
    """The register block a kernel has."""
    return kernel.tile


def build_for_processor(
    graph: Graph, plan: Plan, profile: HardwareProfile, threads: int | None = None, best: Best = as_mapped
) -> ProcessorBuild:
    """Lower a planned network for a processor. threads: None for all cores. best: replaces register blocks.

    Raises DoesNotFitError when a kernel does other MACs than its layer, or TVM cannot lower a node left to it.
    """
    processor = profile.processor
    if processor is None:
        raise ValueError(f"{profile.name} is no processor")
    lanes = lanes_of(processor)
    importer = NetworkImporter(graph)
    steps = find_steps(graph, lanes)
    tiles = MappedTiles(plan, profile)
    network = ProcessorNetwork(graph, importer, steps, lanes, tiles, threads or os.cpu_count() or 1, best)
    importer.own.update(network.converts())
    module = lowered(graph, importer, [str(step.result.name) for step in steps if has_macs(step)])
    kernels = {name: kernel for name, kernel in network.kernels.items() if isinstance(kernel, MacKernel)}
    problems = _problems(plan, kernels, lanes)
    if problems:
        raise DoesNotFitError.of(problems)
    return ProcessorBuild(module, kernels)


def build_integers_for_processor(
    graph: Graph, plan: Plan, profile: HardwareProfile, threads: int | None = None, here: bool = True
) -> ProcessorBuild:
    """As build_for_processor, of a quantised network. Integer steps without a kernel here are lowered plainly.

    here: it runs on this machine, whose dot-product instructions may be used.
    """
    processor = profile.processor
    if processor is None:
        raise ValueError(f"{profile.name} is no processor")
    lanes = lanes_of(processor)
    importer = NetworkImporter(graph)
    network = integer_network(graph)
    features = host_features() if here else {}
    vnni = lanes == VNNI_LANES and bool(features.get("avx512vnni"))
    shuffles, tiles = bool(features.get("avx512vbmi")), MappedTiles(plan, profile)
    steps = IntegerSteps(importer, network, lanes, vnni, shuffles, threads or os.cpu_count() or 1, tiles.of)
    importer.own.update(integer_calls(importer, network, steps.make))
    module = lowered(graph, importer, [str(node.outputs[0].name) for node in graph.nodes if is_quantize(node)])
    problems = _problems(plan, steps.kernels, lanes)
    if problems:
        raise DoesNotFitError.of(problems)
    return ProcessorBuild(module, steps.kernels)


@dataclass(frozen=True)
class MappedTiles:
    """Register blocks of a plan's mappings."""

    plan: Plan
    profile: HardwareProfile

    def __call__(self, step: GraphStep) -> Tile:
        """The block of a step's layer."""
        return self.of(step.name)

    def of(self, layer: str) -> Tile:
        """The block of a layer by name; one vector and a few pixels where it was given no mapping."""
        for planned in self.plan.layers:
            mapping = planned.cost.mapping
            if planned.layer.name == layer and mapping is not None:
                return tile_of(planned.layer.nest, mapping, self.profile)
        return Tile(1, 1, 8)


def has_macs(step: GraphStep) -> bool:
    """Whether the step's kernel multiplies and accumulates."""
    return isinstance(view_of(step.head), Convolution | Gemm)


def kernel_texts(kernels: Mapping[str, MacKernel]) -> Iterator[tuple[str, str]]:
    """Name and TVMScript of every kernel, called after the first layer it runs; equal kernels are written once."""
    first: dict[MacKernel, str] = {}
    for name, kernel in kernels.items():
        first.setdefault(kernel, name)
    for number, (kernel, name) in enumerate(first.items(), 1):
        function = f"layer_{number:03}_{identifier(name)}"
        yield function, str(function_of(kernel, function).script()) + "\n"


def function_of(kernel: MacKernel, name: str) -> Any:
    """A kernel as a PrimFunc of that name."""
    return kernel.function().with_attr("global_symbol", name)


def _problems(plan: Plan, kernels: dict[str, MacKernel], lanes: int) -> list[Problem]:
    found: list[Problem] = []
    for planned in plan.layers:
        kernel = kernels.get(planned.layer.name)
        if kernel is not None:
            counted = macs_of_function(kernel.function())
            at_once = DEPTH if isinstance(kernel, IntegerDepthwise) and kernel.four_taps else 1
            expected = macs_expected(planned.layer.nest, lanes, kernel.source.lanes, at_once)
            found.extend(mac_problems(plan.model.name, planned, counted, expected))
    return found
