"""Channels of published networks: what is coupled, what is frozen and why, and `compound` on EfficientNet-B0.

    python benchmarks/evidence_channels.py MODELS [--output FILE.md]

MODELS: a folder searched for the files of NETWORKS. That the rewritten networks compute the same is shown by
evidence_passes.py; here stands what the analysis finds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from codesign.graph.coupling import couple
from codesign.graph.graph import Graph
from codesign.importers.model import load_model
from codesign.rewriting.graph_pass import PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.record import PassRecord
from codesign.rewriting.runner import run_pipeline

NETWORKS = (
    *("mobilenetv2_1.0", "mobilenetv3_large_1.0", "efficientnet_b0", "shufflenetv2_x1.0", "densenet121"),
    *("ghostnet_1.0", "mobilevit_s", "ultraface_rfb320"),
)
COMPOUND = "efficientnet_b0"
_ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--output", type=Path, default=_ROOT / "docs" / "evidence" / "channels.md")
    options = parser.parse_args()
    files = {path.stem: path for path in sorted(_paths(options.models)) if path.stem in NETWORKS}
    graphs = {name: load_model(files[name], {}, None) for name in NETWORKS if name in files}
    options.output.write_text("\n".join(_page(graphs)) + "\n", encoding="utf-8")
    print(f"{options.output}: {len(graphs)} of {len(NETWORKS)} networks")


def _paths(folder: Path) -> Iterator[Path]:
    """The exporters' folders, and the models that lie beside the repository; of two of one name the later counts."""
    yield from (_ROOT.parent / "shared" / "models").glob("*.onnx")
    for kind in ("dynamo", "bn", "ts"):
        yield from (folder / kind).glob("*.onnx")
    yield from folder.glob("*.onnx")


def _page(graphs: dict[str, Graph]) -> Iterator[str]:
    yield "# Coupled channels of published networks\n"
    yield f"{date.today()}, written by `benchmarks/evidence_channels.py`.\n"
    yield "Groups of channels that change together; those that cannot grow, with the reason; and what `round-channels`"
    yield "makes of the others. That the results are equal stands in [passes.md](passes.md).\n"
    yield "| network | groups | rounded up | already a power of two | cannot grow |"
    yield "|---|---:|---:|---:|---|"
    yield from (_row(name, graph) for name, graph in graphs.items())
    if COMPOUND in graphs:
        yield from _compound(graphs[COMPOUND])
    missing = [name for name in NETWORKS if name not in graphs]
    if missing:
        yield f"\nNot there: {', '.join(missing)}."


def _row(name: str, graph: Graph) -> str:
    groups = couple(graph).groups
    _, record = _rounded(graph, "round-channels")
    frozen = [f"{group.name} ({group.size}: {group.frozen[0].reason})" for group in groups if not group.grows]
    rest = len(groups) - record.applied - len(frozen)
    return f"| {name} | {len(groups)} | {record.applied} | {rest} | {'; '.join(frozen)} |"


def _compound(graph: Graph) -> Iterator[str]:
    yield f"\n## `round-channels{{mode=compound}}` on {COMPOUND}\n"
    rounded, record = _rounded(graph, "round-channels{mode=compound}")
    before, after = couple(graph).groups, couple(rounded).groups
    yield "| made by | channels | rounded | power of two |"
    yield "|---|---:|---:|---|"
    for old, new in zip(before, after, strict=True):
        yield f"| {old.name} | {old.size} | {new.size} | {'yes' if new.size & (new.size - 1) == 0 else 'no'} |"
    yield "\nExceptions, as the pass names them:\n"
    yield from (f"* {declined.where}: {declined.reason}" for declined in record.declined)


def _rounded(graph: Graph, text: str) -> tuple[Graph, PassRecord]:
    rounded, [record] = run_pipeline(graph, resolve_pipeline(text), PassContext())
    return rounded, record


if __name__ == "__main__":
    main()
