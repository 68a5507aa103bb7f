"""The whole flow on one screen: model -> graph -> passes -> layers -> plan (estimate) -> TIR -> library and reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from codesign import __version__
from codesign.advice.advice import Advice
from codesign.advice.advising import Heading, advice_on
from codesign.advice.outputs import Judge
from codesign.advice.ranking import Workbench
from codesign.artifacts.arrays import read_array, read_arrays
from codesign.errors import CodesignError, DoesNotFitError, did_you_mean
from codesign.graph.codes import is_quantized
from codesign.graph.graph import Graph
from codesign.graph.samples import Samples, batches, given, synthetic
from codesign.hardware.loading import LoadedProfile, load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.importers.model import load_model
from codesign.mapping.cache import SearchMemory, cache_folder, cached_search
from codesign.mapping.objective import objective_named
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
from codesign.training.sensitivity import GradientOracle
from codesign.workload.layers import layers_of, parameters_of
from codesign.workload.storage import storage_of

if TYPE_CHECKING:
    from codesign.lowering.network import LoweredNetwork
    from codesign.lowering.processor.network import MacKernel
    from codesign.lowering.targets import Machine

Model = str | PathLike[str] | object
OnStep = Callable[[str, str, int, int], None]
EMITTED = {"so": "model.so", "c": "c/"}  # by what --emit calls them
Calibration = str | PathLike[str] | Iterable[Mapping[str, np.ndarray] | np.ndarray]
SYNTHETIC, _SYNTHETIC_RUNS = "synthetic", 8


@dataclass(frozen=True)
class Settings:
    """What the user chose beside the model. hw: name or path. passes: a pipeline's name or a list of passes; None: the
    pipeline the machine names.

    mapping: a file with mappings of layers, which are taken as they are, and constraints on the search for others.
    sram_limit_bytes: of the memory all activations must fit in together.
    passes_after: passes that run behind those, as a list.
    emit: what `compile` makes to run the network with: so, c. c_prefix: what names in the C begin with.
    calibration: inputs that activations are measured on: an .npz file (.npy for a network with one input), `synthetic`
    for random numbers, or an iterable of arrays by input name (of arrays for a network with one input).
    threads: of the library, where the machine is a processor; None: what its profile says, else one a core.
    tune: so many trials of register blocks for every distinct layer of a processor, measured on this machine.
    target: the machine of the library, an LLVM triple or triple:cpu; None: this one.
    """

    hw: str
    passes: str | None = None
    objective: str = "latency"
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    example_inputs: tuple[object, ...] | None = None
    stop_after: str | None = None
    dump_graphs: Path | None = None
    allow_host: bool = True
    on_step: OnStep | None = None
    mapping: str | PathLike[str] | None = None
    sram_limit_bytes: int | None = None
    emit: tuple[str, ...] = ("so",)
    c_prefix: str = "codesign"
    calibration: Calibration | None = None
    passes_after: str = ""
    threads: int | None = None
    tune: int = 0
    target: str | None = None

    def step(self, stage: str) -> Callable[[str, int, int], None]:
        """Reports progress within one stage: name of the item, its number from 1, how many there are."""

        def report(name: str, number: int, total: int) -> None:
            if self.on_step is not None:
                self.on_step(stage, name, number, total)

        return report


@dataclass(frozen=True)
class Planned:
    """A plan and what it was made from: the rewritten graph, the machine, the pipeline."""

    plan: Plan
    graph: Graph
    hardware: LoadedProfile
    pipeline: Pipeline


@dataclass(frozen=True)
class Explanation:
    """A plan, and some of its layers with what would help them."""

    plan: Plan
    layers: tuple[ExplainedLayer, ...]


@dataclass(frozen=True)
class Build:
    """What `compile` wrote: the plan, and the folder with the artifacts."""

    plan: Plan
    folder: Path


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
    floating = floating_layers(graph)
    network = Network(
        model=Identity(imported.name, imported.sha256),
        where=str(imported.source or imported.name),
        layers=layers_of(graph, floating),
        outputs=frozenset(str(value.name) for value in graph.outputs),
        parameters=parameters_of(graph),
        precision=precision_text(graph, hardware),
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
    if settings.sram_limit_bytes is not None:
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


def build(planned: Planned, settings: Settings, output: Path) -> Build:
    """Lower a plan and write the output folder."""
    from codesign.artifacts.annotated_model import write_model
    from codesign.artifacts.manifest import write_manifest
    from codesign.artifacts.output_folder import output_folder
    from codesign.lowering.library import write_interface, write_library
    from codesign.lowering.unsupported import unsupported_nodes
    from codesign.report.files import write_reports

    graph, plan, processor = planned.graph, planned.plan, planned.hardware.profile.processor
    threads = settings.threads or (processor.threads if processor is not None else None)
    with output_folder(output) as folder:
        refused = unsupported_nodes(graph)
        if refused:
            last = replace(refused[-1], hint="`codesign estimate` costs the network all the same")
            raise DoesNotFitError.of([*refused[:-1], last])
        (folder / "tir").mkdir()
        lower = _for_processor if _is_for_processor(planned) else _scheduled
        network = lower(planned, settings, folder)
        machine = _machine_of(settings, planned.hardware.profile) if "so" in settings.emit else None
        write_interface(network, folder)
        write_model(graph, plan, folder / "model.onnx")
        for number, kind in enumerate(settings.emit, 1):
            settings.step("building")(EMITTED[kind], number, len(settings.emit))
            if kind == "so":
                write_library(network, folder, machine, threads)
            else:
                emit_c(planned, folder, settings.c_prefix)
        write_reports(plan, folder)
        write_manifest(folder, plan, planned.hardware.path, str(planned.pipeline), graph.source)
    return Build(plan, output)


def _is_for_processor(planned: Planned) -> bool:
    """Whether kernels for processors are used."""
    return planned.hardware.profile.processor is not None


def _scheduled(planned: Planned, settings: Settings, folder: Path) -> LoweredNetwork:
    """The network of an accelerator, and tir/: every layer shows what its mapping moves."""
    from codesign.lowering.integers.scheduled import operand_types
    from codesign.lowering.layers import schedule_layers, tir_text
    from codesign.lowering.network import build_network

    graph, profile = planned.graph, planned.hardware.profile
    types = operand_types(integer_network(graph)) if is_quantized(graph) else None
    scheduled = schedule_layers(planned.plan, profile, settings.step("scheduling"), types)
    for name, layer in {layer.name: layer for layer in scheduled.values()}.items():
        (folder / "tir" / f"{name}.py").write_text(tir_text(layer), encoding="utf-8")
    return build_network(graph, scheduled)


def _for_processor(planned: Planned, settings: Settings, folder: Path) -> LoweredNetwork:
    """The network of a processor, and tir/: kernels with the mappings' register blocks."""
    from codesign.lowering.processor.building import build_for_processor, build_integers_for_processor
    from codesign.lowering.processor.tuning import Tuning

    profile = planned.hardware.profile
    assert profile.processor is not None
    threads = settings.threads or profile.processor.threads
    if is_quantized(planned.graph):
        integers = build_integers_for_processor(planned.graph, planned.plan, profile, threads, settings.target is None)
        _write_kernels(integers.kernels, folder)
        return integers.network
    tuning = Tuning(cache_folder("tuning"))
    if settings.tune:
        mapped = build_for_processor(planned.graph, planned.plan, profile, threads)
        tuning.tune(mapped.kernels, profile.processor, settings.tune, settings.step("tuning"))
    made = build_for_processor(planned.graph, planned.plan, profile, threads, tuning.best)
    _write_kernels(made.kernels, folder)
    return made.network


def _write_kernels(kernels: Mapping[str, MacKernel], folder: Path) -> None:
    from codesign.lowering.processor.building import kernel_texts

    for name, text in kernel_texts(kernels):
        (folder / "tir" / f"{name}.py").write_text(text, encoding="utf-8")


def _machine_of(settings: Settings, profile: HardwareProfile) -> Machine:
    """What model.so is built for; a processor with narrower vectors than the profile's is warned about."""
    from codesign.lowering.targets import machine_for, warn_about_vectors

    machine = machine_for(settings.target)
    if profile.processor is not None:
        warn_about_vectors(machine, profile.processor.vector_bits, profile.name)
    return machine


def detect_processor(target: Path) -> Path:
    """Write the profile of this machine's processor into a new .yaml file. Raises CodesignError when one is there."""
    from codesign.hardware.host_profile import profile_text
    from codesign.hardware.listing import valid_name, write_new
    from codesign.lowering.processor.detection import detect

    facts = detect()
    return write_new(target, lambda stem: profile_text(facts, stem if valid_name(stem) else "host_cpu"))


def floating_layers(graph: Graph) -> dict[str, str]:
    """Layers of a quantised graph that stay in floating point, and why."""
    return {step.name: step.reason for step in integer_network(graph).floating} if is_quantized(graph) else {}


def emit_c(planned: Planned, folder: Path, prefix: str) -> None:
    """Write c/ into a folder that holds model.onnx already: its outputs are what the C is held against."""
    from codesign.artifacts.c_folder.borders import borders_of
    from codesign.artifacts.c_folder.checking import vector_of
    from codesign.artifacts.c_folder.folder import write_c_folder
    from codesign.artifacts.c_folder.prefix import FOLDER
    from codesign.lowering.c_source.network import c_program
    from codesign.lowering.interface import Interface
    from codesign.lowering.library import legalised
    from codesign.lowering.network import build_network

    borders = borders_of(planned.graph)
    network = build_network(borders.graph, channels_last=True)
    program = c_program(legalised(network.module, with_views=True), network.interface, where=planned.plan.model.name)
    vector = vector_of(folder / "model.onnx", Interface.read(folder), None, borders)
    title = f"{planned.plan.model.name}, by codesign {__version__}"
    write_c_folder(program, vector, folder / FOLDER, title, prefix, borders.notes)


def check_emitted(settings: Settings) -> None:
    """Raise CodesignError for kinds of artifacts there are none of, and for a prefix C does not take."""
    from codesign.artifacts.c_folder.prefix import check_prefix

    known = ", ".join(EMITTED)
    for kind in settings.emit:
        if kind not in EMITTED:
            raise CodesignError("--emit", f"there is no {kind!r}", did_you_mean(kind, EMITTED) or f"there is {known}")
    check_prefix(settings.c_prefix)


def precision_text(graph: Graph, hardware: LoadedProfile) -> str:
    """The widths the costs assume, and what the model really is."""
    bits = hardware.profile.precision
    if is_quantized(graph):
        types = sorted({tensor.dtype for tensor in integer_network(graph).tensors.values() if tensor.is_codes})
        priced = "" if types == [f"int{bits.activations_bits}"] else f", priced as int{bits.activations_bits}"
        return f"{', '.join(types)} (quantised{priced})"
    types = sorted({str(value.dtype.numpy()) for value in graph.inputs if value.dtype is not None})
    return f"int{bits.activations_bits} (assumed; the model is {', '.join(types) or 'float32'})"
