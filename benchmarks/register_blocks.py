"""Instructions of one network with every register block forced upon its kernels, beside those the mappings choose."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir
from emulated import emulate

from codesign.artifacts.c_folder.borders import borders_of
from codesign.artifacts.c_folder.checking import vector_of
from codesign.artifacts.c_folder.folder import write_sources
from codesign.compiler import plan_model
from codesign.graph.codes import is_quantized
from codesign.graph.graph import Graph
from codesign.lowering.c_source.network import c_program
from codesign.lowering.library import legalised
from codesign.lowering.microcontroller.blocks import Block, Blocks, MappedBlocks
from codesign.lowering.network import build_network
from codesign.settings import Settings

INTEGERS = (Block(1, 1), Block(1, 2), Block(2, 1), Block(1, 4), Block(2, 2))
FLOATS = (Block(1, 1), Block(2, 2), Block(1, 8), Block(8, 1), Block(2, 4), Block(4, 2), Block(2, 8), Block(4, 4))


class Forced(Blocks):
    """One block for all layers; a layer of one pixel keeps that pixel alone."""

    def __init__(self, chosen: Block) -> None:
        self.chosen = chosen

    def block(self, layer: str, own: Block, known: Sequence[Block], bits: int) -> Block:
        return Block(1, self.chosen.channels) if own.pixels == 1 else self.chosen


@dataclass
class Noted(Blocks):
    """Blocks of mappings, noted by layer."""

    mapped: MappedBlocks
    found: dict[str, Block] = field(default_factory=dict)

    def block(self, layer: str, own: Block, known: Sequence[Block], bits: int) -> Block:
        self.found[layer] = self.mapped.block(layer, own, known, bits)
        return self.found[layer]

    def check(self, layer: str, counted: int, expected: int) -> None:
        self.mapped.check(layer, counted, expected)


@dataclass(frozen=True)
class Counted:
    """instructions of one run. arena_bytes, code aside. ok: equal to onnxruntime or, of codes, to numpy."""

    name: str
    instructions: int
    arena_bytes: int
    stack_bytes: int
    ok: bool


def counted(graph: Graph, blocks: Blocks, name: str) -> Counted:
    """Build with these blocks and run on the emulated Cortex-M4."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        ir.save(graph.model, folder / "model.onnx")
        borders = borders_of(graph)
        network = build_network(borders.graph, channels_last=True, blocks=blocks)
        program = c_program(legalised(network.module, with_views=True), network.interface)
        vector = vector_of(folder / "model.onnx", build_network(graph).interface, None, borders)
        arena = write_sources(program, vector, folder / "c", "evidence", "codesign").arena
        done = emulate(folder)
    return Counted(name, done.instructions, arena.size_bytes, done.stack_bytes, done.ok)


def mapped(model: Path, hw: str, passes: str) -> tuple[Counted, Graph]:
    """With the blocks of a machine's mappings; what they are stands in the name."""
    settings = Settings(hw=hw, passes=passes, calibration="synthetic" if "quantize" in passes else None)
    planned = plan_model(str(model), settings)
    blocks = Noted(MappedBlocks(planned.plan, planned.hardware.profile))
    found = counted(planned.graph, blocks, "")
    names = ", ".join(f"{shown(block)} in {count}" for block, count in Counter(blocks.found.values()).most_common())
    return Counted(f"of `{hw}`: {names}", *list(vars(found).values())[1:]), planned.graph


def shown(block: Block) -> str:
    """Channels x pixels."""
    return f"{block.channels} x {block.pixels}"


def comparison(model: Path, macs: int) -> Iterator[tuple[str, bool]]:
    """Rows of the table for one model, int8 and float, and whether all of them agree."""
    for hw, passes, known in (
        ("stm32l4r5", "default,quantize", INTEGERS),
        ("stm32l4r5_float", "default", FLOATS),
    ):
        best, graph = mapped(model, hw, passes)
        kind = "int8" if is_quantized(graph) else "float"
        for found in (best, *(counted(graph, Forced(block), shown(block)) for block in known)):
            figures = (f"{found.instructions:,}", f"{found.instructions / macs:.2f}", f"{found.arena_bytes:,}")
            yield f"| {kind} | {found.name} | " + " | ".join(figures) + " |", found.ok
