"""The whole flow on one screen: model -> graph -> passes -> layers -> plan (estimate) -> TIR -> library and reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from codesign import __version__
from codesign.advice.advice import Advice
from codesign.advice.advising import Heading, advice_on
from codesign.advice.outputs import Judge
from codesign.advice.ranking import Workbench
from codesign.artifacts.arrays import read_array, read_arrays
from codesign.building import build, check_emitted
from codesign.errors import CodesignError
from codesign.graph.codes import is_quantized
from codesign.graph.graph import Graph
from codesign.graph.samples import Samples, batches, given, synthetic
from codesign.hardware.loading import LoadedProfile, load_profile
from codesign.importers.model import load_model
from codesign.mapping.cache import SearchMemory, cached_search
from codesign.mapping.objective import objective_named
from codesign.numerics.steps import IntegerNetwork
from codesign.planning.explaining import ExplainedLayer, Explainer, layers_named
from codesign.planning.instructions import instructions_of
from codesign.planning.mapping_file import MappingFile, read_mapping_file
from codesign.planning.memory.limit import check_limit
from codesign.planning.memory.of_network import problem_of
from codesign.planning.memory.planning import plan_memory
from codesign.planning.placement import as_units_run
from codesign.planning.plan import Identity, Plan
from codesign.planning.planner import Network, plan_network
from codesign.planning.pricing import PlanningOracle
from codesign.quantization.reading import integer_network
from codesign.report.facts import costliest
from codesign.rewriting.catalogue import catalogue
from codesign.rewriting.graph_pass import PassContext
from codesign.rewriting.options import variants_of
from codesign.rewriting.pipeline import Pipeline, default_pipeline, resolve_pipeline
from codesign.rewriting.runner import run_pipeline
from codesign.settings import Build, Calibration, Model, Planned, Settings
from codesign.training.sensitivity import GradientOracle
from codesign.workload.layers import layers_of, parameters_of
from codesign.workload.storage import storage_of

SYNTHETIC, _SYNTHETIC_RUNS = "synthetic", 8


@dataclass(frozen=True)
class Explanation:
    """A plan, and some of its layers with what would help them."""

    plan: Plan
    layers: tuple[ExplainedLayer, ...]


def estimate(model: Model, *, hw: str, **settings: object) -> Plan:
    """Cost of a model on a machine, without lowering.

    model: path of an ONNX or .pt2 file, or a torch module with `example_inputs`. hw: name or path of a profile.
    settings: the fields of Settings. Raises CodesignError (bad input) or DoesNotFitError.
    """
    return plan_model(model, Settings(hw, **settings)).plan  # type: ignore[arg-type]


def explain(model: Model, *, hw: str, layers: Sequence[str] = (), top: int = 5, **settings: object) -> Explanation:
    """Where the cycles of layers go and what would help most, found by changing one thing and searching again.

    layers: names of layers; if there are none, the `top` ones that take most cycles. Other arguments as for `estimate`.
    """
    return explain_model(model, Settings(hw, **settings), layers, top)  # type: ignore[arg-type]


def advise(model: Model, *, hw: str, data: str | PathLike[str] | None = None, **settings: object) -> Advice:
    """Every rewrite of the catalogue on a model and a machine, ranked by what it saves.

    data: inputs to compare outputs on, .npz by tensor name or .npy for a model with one input; random ones otherwise.
    settings: as for `estimate`; `passes` makes the baseline, and is `none` unless given. Raises CodesignError (bad
    input), or DoesNotFitError when the baseline does not fit.
    """
    chosen = Settings(hw, **{"passes": "none", **settings})  # type: ignore[arg-type]
    return advise_model(model, chosen, None if data is None else Path(data))


def compile(model: Model, *, hw: str, output: str | PathLike[str] = "build", **settings: object) -> Build:
    """Plan a model, lower it through TVM, and write reports, model.onnx, tir/, model.so and c/ into `output`.

    Arguments as for `estimate`. Raises CodesignError (bad input), or DoesNotFitError: a layer fits no memory, TVM
    cannot lower a node, or scheduled code and cost model disagree. Nothing is written then.
    """
    return compile_model(model, Settings(hw, **settings), Path(output))  # type: ignore[arg-type]


def compile_model(model: Model, settings: Settings, output: Path) -> Build:
    """As `compile`; an output folder that must not be replaced is refused before any work."""
    from codesign.artifacts.output_folder import check_replaceable

    check_replaceable(output, str(output))
    check_emitted(settings)
    check_wishes(settings)
    return build(plan_model(model, settings), settings, output)


def explain_model(model: Model, settings: Settings, names: Sequence[str] = (), top: int = 5) -> Explanation:
    """As `explain`."""
    planned = plan_model(model, settings)
    layers = layers_named(planned.plan, names) if names else [group[0] for group in costliest(planned.plan, top)]
    profile = planned.hardware.profile
    units = (unit for layer in layers_of(planned.graph) for unit in as_units_run(layer, profile))
    nests = {unit.name: unit.nest for unit in units}
    explainer = Explainer(profile, objective_named(settings.objective), nests)
    found = []
    for number, layer in enumerate(layers, 1):
        settings.step("explaining")(layer.layer.name, number, len(layers))
        found.append(explainer.explain(layer))
    return Explanation(planned.plan, tuple(found))


def advise_model(model: Model, settings: Settings, data: Path | None = None) -> Advice:
    """As `advise`."""
    objective = objective_named(settings.objective)
    hardware = load_profile(settings.hw)
    pipeline = resolve_pipeline(settings.passes or "none")
    imported = load_model(model, settings.input_shapes, settings.example_inputs)
    oracle = PlanningOracle(hardware.profile, objective, SearchMemory(cached_search()).search)
    calibration = calibration_of(imported, settings.calibration if data is None else data)
    context = PassContext(hardware.profile, oracle, GradientOracle(), calibration)
    graph, _ = run_pipeline(imported, pipeline, context)
    samples = synthetic(graph) if data is None else _given(graph, data)
    passes = catalogue()
    heading = Heading(
        __version__,
        Identity(imported.name, imported.sha256),
        Identity(hardware.profile.name, hardware.sha256),
        str(objective),
        hardware.profile.off_chip,
        pipeline,
        tuple((name, f"{part.where}: {part.reason}") for name, part in passes.broken.items()),
    )
    steps = [variant for kind in passes.passes.values() for variant in variants_of(kind)]
    return advice_on(Workbench(graph, context, oracle, Judge(graph, samples)), heading, steps, settings.step)


def calibration_of(graph: Graph, given: Calibration | None) -> Samples | None:
    """Inputs that activations are measured on, as `Settings.calibration` names them. Raises CodesignError."""
    match given:
        case None:
            return None
        case str() if given == SYNTHETIC:
            return synthetic(graph, _SYNTHETIC_RUNS)
        case str() | PathLike():
            return _given(graph, Path(given))
    return batches(graph, given, "the iterator")


def _given(graph: Graph, data: Path) -> Samples:
    if data.suffix != ".npy":
        return given(graph, read_arrays(data), str(data))
    array = read_array(data)
    names = [str(value.name) for value in graph.inputs]
    if len(names) != 1:
        hint = "give an .npz file with one array per input, by tensor name"
        raise CodesignError(str(data), f"one array, and the network has the inputs {', '.join(names)}", hint)
    return given(graph, {names[0]: array}, str(data))


def plan_model(model: Model, settings: Settings) -> Planned:
    """Import, rewrite and plan."""
    objective = objective_named(settings.objective)
    hardware = load_profile(settings.hw)
    pipeline = chosen_pipeline(settings, hardware)
    file = MappingFile() if settings.mapping is None else read_mapping_file(Path(settings.mapping), hardware.profile)
    imported = load_model(model, settings.input_shapes, settings.example_inputs)
    search = SearchMemory(cached_search()).search
    graph, records = run_pipeline(
        imported,
        pipeline,
        PassContext(
            hardware.profile,
            PlanningOracle(hardware.profile, objective, search),
            GradientOracle(),
            calibration_of(imported, settings.calibration),
        ),
        stop_after=settings.stop_after,
        dump_directory=settings.dump_graphs,
        on_progress=lambda step: settings.step("rewriting")(step.name, step.number, step.total),
    )
    integers = integer_network(graph) if is_quantized(graph) else None
    floating = {} if integers is None else {step.name: step.reason for step in integers.floating}
    network = Network(
        model=Identity(imported.name, imported.sha256),
        where=str(imported.source or imported.name),
        layers=layers_of(graph, floating),
        outputs=frozenset(str(value.name) for value in graph.outputs),
        parameters=parameters_of(graph),
        precision=precision_text(graph, integers, hardware),
        passes=records,
        floating=floating,
        pipeline=f"{pipeline.name}, named by {hardware.profile.name if settings.passes is None else '--passes'}",
    )
    plan = plan_network(
        network,
        hardware.profile,
        Identity(hardware.profile.name, hardware.sha256),
        objective,
        version=__version__,
        instructions=instructions_of(file, network.layers, hardware.profile),
        search=search,
        allow_host=settings.allow_host,
        on_layer=settings.step("mapping"),
    )
    storage = storage_of(graph, hardware.profile.precision.activations_bits)
    memory = plan_memory(problem_of(plan.layers, storage))
    if settings.sram_limit_bytes is not None and "c" not in settings.emit:  # the C has a plan of its own
        check_limit(memory, settings.sram_limit_bytes, network.where)
    return Planned(replace(plan, memory=memory), graph, hardware, pipeline)


def chosen_pipeline(settings: Settings, hardware: LoadedProfile) -> Pipeline:
    """The passes the user asked for, or else the exact ones the machine names; then those of `passes_after`.

    Raises CodesignError, also for calibration data that no pass reads.
    """
    if settings.passes is not None:
        pipeline = resolve_pipeline(settings.passes)
    else:
        pipeline = default_pipeline(hardware.profile.pipeline, hardware.where("pipeline"))
    if settings.passes_after:
        after = resolve_pipeline(settings.passes_after).passes
        pipeline = Pipeline(f"{pipeline.name}, {settings.passes_after}", (*pipeline.passes, *after))
    if settings.calibration is not None and not any(step.reads_calibration for step in pipeline.passes):
        readers = [name for name, kind in catalogue().passes.items() if kind.reads_calibration]
        hint = f"ask for one that does: --passes {pipeline.name},{readers[0]}" if readers else ""
        raise CodesignError("--calibration", "no pass reads it", hint)
    return pipeline


def check_wishes(settings: Settings) -> None:
    """Raise CodesignError for wishes that exclude each other or that the machine cannot be asked for."""
    if settings.tune and settings.target is not None:
        raise CodesignError("--tune", f"trials run here, not on {settings.target}", "leave out --tune or --target")
    wished = [name for name, value in (("--tune", settings.tune), ("--threads", settings.threads)) if value]
    profile = load_profile(settings.hw).profile
    if wished and profile.processor is None:
        problem = f"{profile.name} is no processor: its library shows what the machine does, and is not made fast"
        raise CodesignError(wished[0], problem, "use --hw host_cpu, or a profile with a section `processor`")


def detect_processor(target: Path) -> Path:
    """Write the profile of this machine's processor into a new .yaml file. Raises CodesignError when one is there."""
    from codesign.hardware.host_profile import profile_text
    from codesign.hardware.listing import valid_name, write_new
    from codesign.lowering.processor.detection import detect

    facts = detect()
    return write_new(target, lambda stem: profile_text(facts, stem if valid_name(stem) else "host_cpu"))


def precision_text(graph: Graph, integers: IntegerNetwork | None, hardware: LoadedProfile) -> str:
    """The widths the costs assume, and what the model really is. integers: of a quantised graph."""
    bits = hardware.profile.precision
    if integers is not None:
        types = sorted({tensor.dtype for tensor in integers.tensors.values() if tensor.is_codes})
        priced = "" if types == [f"int{bits.activations_bits}"] else f", priced as int{bits.activations_bits}"
        return f"{', '.join(types)} (quantised{priced})"
    types = sorted({str(value.dtype.numpy()) for value in graph.inputs if value.dtype is not None})
    return f"int{bits.activations_bits} (assumed; the model is {', '.join(types) or 'float32'})"
