"""The stages of one network: counted, rewritten, mapped on five machines, compiled, quantised, and held against others.

    python benchmarks/family_stages.py STAGE MODEL.onnx    prints what it found as JSON

Untrained networks whose outputs hardly depend on their input get weights that do (network_weights), for every stage
that compares numbers.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from evidence_networks import measure, network_to_try
from family_rows import MACHINES, Compiled, Cost, Counted, Mapped, Outcome, Quantized, Rewritten
from network_weights import random_inputs
from resumable import measure_here

from codesign.errors import DoesNotFitError
from codesign.graph.graph import Graph, shape_of
from codesign.rewriting.graph_pass import PassContext

COMPILED_FOR = "edge_npu"
CALIBRATION, JUDGED = 2, 2  # runs of Gaussian noise


def imports(model: Path) -> Counted:
    """Import and count."""
    from codesign.importers.model import load_model
    from codesign.networks.counts import counts_of
    from codesign.workload.layers import layers_of

    graph = load_model(str(model))
    layers = layers_of(graph)
    counts = counts_of(graph, layers)
    return Counted(
        layers=len(layers),
        macs=counts.macs,
        parameters=counts.parameters,
        statistics=counts.statistics,
        image=tuple(int(size) for size in shape_of(graph.inputs[0])),
    )


def _rewritten(model: Path, passes: str, context: PassContext) -> tuple[Graph, int, object]:
    from codesign.importers.model import load_model
    from codesign.rewriting.pipeline import resolve_pipeline
    from codesign.rewriting.runner import run_pipeline

    graph, records = run_pipeline(load_model(str(model)), resolve_pipeline(passes), context)
    applied = sum(record.applied for record in records)
    return graph, applied, records[-1].quantization if records else None


def passes(model: Path) -> Rewritten:
    """The passes `default`, and what onnxruntime makes of the network before and after."""
    import onnx

    from codesign.artifacts.onnx_runner import open_model
    from codesign.artifacts.verification import relative_difference
    from codesign.quantization.running import open_graph

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tried, _ = network_to_try(model, folder)
        graph, applied, _ = _rewritten(tried, "default", PassContext())
        made = [str(value.name) for value in graph.outputs]
        inputs = random_inputs(onnx.load(tried))
        ours = open_graph(graph, tuple(made)).run(inputs)
        truths = []
        for path in (tried, folder / "altered.onnx"):
            final, inner = open_model(path, made).run(inputs)
            truths.append({**final, **inner})
    difference, control = (max(relative_difference(ours[name], truth[name]) for name in made) for truth in truths)
    return Rewritten(applied=applied, difference=difference, control=control)


def maps(model: Path) -> Mapped:
    """Estimates on all machines."""
    return Mapped(machines={name: _cost(model, name) for name in MACHINES})


def _cost(model: Path, machine: str) -> Cost:
    from codesign.compiler import estimate
    from codesign.vocabulary import OperationKind

    try:
        plan = estimate(str(model), hw=machine)
    except DoesNotFitError as error:
        return Cost(problem=error.problems[0].problem)
    mapped = [layer for layer in plan.layers if layer.cost.mapping is not None]
    depthwise = OperationKind.DEPTHWISE_CONVOLUTION
    return Cost(
        cycles=plan.totals.cycles,
        utilization=plan.totals.utilization,
        dense_cycles=sum(layer.cost.cycles for layer in mapped if layer.layer.nest.kind is not depthwise),
        depthwise_cycles=sum(layer.cost.cycles for layer in mapped if layer.layer.nest.kind is depthwise),
        energy_uj=plan.totals.energy_uj,
        mapped=len(mapped),
        proven=sum(layer.cost.proven for layer in mapped),
        host=sum(layer.engine == "host" for layer in plan.layers),
    )


def compiles(model: Path) -> Compiled:
    """Build the library and hold it against onnxruntime on the file itself."""
    found = measure(model, COMPILED_FOR)
    compared = found.compared
    difference = max(compared.outputs, compared.layers)
    return Compiled(difference=difference, control=compared.control, host=found.host, fault=found.fault)


def int8(model: Path) -> Quantized:
    """Quantise on noise, judge on other noise."""
    import numpy as np

    from codesign.graph.samples import Samples
    from codesign.quantization.noise import Fed, output_noise
    from codesign.quantization.reading import integer_network

    def noise(graph: Graph, seed: int, count: int) -> Samples:
        random = np.random.default_rng(seed)
        shapes = {str(value.name): shape_of(value) for value in graph.inputs}
        runs = tuple(
            {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
            for _ in range(count)
        )
        return Samples(f"{count} runs of Gaussian noise, seed {seed}", given=True, runs=runs)

    with tempfile.TemporaryDirectory() as name:
        tried, _ = network_to_try(model, Path(name))
        before, _, _ = _rewritten(tried, "default", PassContext())
        context = PassContext(calibration=noise(before, 10, CALIBRATION))
        after, _, report = _rewritten(tried, "default,quantize", context)
    judged = noise(before, 20, JUDGED).runs
    levels = [found.sqnr_db for found in output_noise(Fed(before, judged), Fed(after, judged)).values()]
    network = integer_network(after)
    return Quantized(
        output_db=min((level for level in levels if level is not None), default=None),
        integer=len(network.steps) - len(network.floating),
        floating=len(network.floating),
        saturated=report.saturated / report.numbers,  # type: ignore[attr-defined]
    )


RUN: dict[str, Callable[[Path], Outcome]] = {
    "imports": imports,
    "passes": passes,
    "maps": maps,
    "compiles": compiles,
    "int8": int8,
}


def main() -> int:
    stage, model = sys.argv[1], Path(sys.argv[2])
    return measure_here(lambda: RUN[stage](model))


if __name__ == "__main__":
    sys.exit(main())
