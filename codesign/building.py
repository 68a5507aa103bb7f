"""From a plan to the output folder: TIR, library, C, model, reports and manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from codesign import __version__
from codesign.errors import CodesignError, DoesNotFitError, did_you_mean
from codesign.graph.codes import is_quantized
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.cache import cache_folder
from codesign.planning.memory.limit import check_limit
from codesign.planning.memory.memory_plan import MemoryPlan
from codesign.quantization.reading import integer_network
from codesign.settings import Build, Planned, Settings

if TYPE_CHECKING:
    from codesign.lowering.network import LoweredNetwork
    from codesign.lowering.processor.network import MacKernel
    from codesign.lowering.targets import Machine

EMITTED = {"so": "model.so", "c": "c/"}  # by what --emit calls them


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
                memory = emit_c(planned, folder, settings.c_prefix, settings.sram_limit_bytes)
                plan = replace(plan, memory=memory)
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


def emit_c(planned: Planned, folder: Path, prefix: str, limit_bytes: int | None = None) -> MemoryPlan:
    """Write c/ into a folder that holds model.onnx already: its outputs are what the C is held against.

    Returns where activations lie in its arena. Raises DoesNotFitError where those with the caller's inputs and outputs
    take more than a limit.
    """
    from codesign.artifacts.c_folder.borders import borders_of
    from codesign.artifacts.c_folder.checking import vector_of
    from codesign.artifacts.c_folder.folder import write_c_folder
    from codesign.artifacts.c_folder.prefix import FOLDER
    from codesign.lowering.c_source.network import c_program
    from codesign.lowering.interface import Interface
    from codesign.lowering.library import legalised
    from codesign.lowering.microcontroller.blocks import MappedBlocks
    from codesign.lowering.network import build_network

    borders = borders_of(planned.graph)
    blocks = MappedBlocks(planned.plan, planned.hardware.profile)
    network = build_network(borders.graph, channels_last=True, blocks=blocks)
    program = c_program(legalised(network.module, with_views=True), network.interface, where=planned.plan.model.name)
    vector = vector_of(folder / "model.onnx", Interface.read(folder), None, borders)
    title = f"{planned.plan.model.name}, by codesign {__version__}"
    memory = write_c_folder(program, vector, folder / FOLDER, title, prefix, borders.notes)
    if limit_bytes is not None:
        where = str(planned.graph.source or planned.graph.name)
        check_limit(memory, limit_bytes, where, program.border_bytes)
    return memory


def check_emitted(settings: Settings) -> None:
    """Raise CodesignError for kinds of artifacts there are none of, and for a prefix C does not take."""
    from codesign.artifacts.c_folder.prefix import check_prefix

    known = ", ".join(EMITTED)
    for kind in settings.emit:
        if kind not in EMITTED:
            raise CodesignError("--emit", f"there is no {kind!r}", did_you_mean(kind, EMITTED) or f"there is {known}")
    check_prefix(settings.c_prefix)
