"""Compiles and runs the networks in a folder and holds every one of them against onnxruntime on the original file.

    python benchmarks/evidence_networks.py MODELS [--hw NAME] [--only a,b] [--limit-seconds N] [--keep]
                                           [--output FILE.md] [--cache FILE.jsonl]

MODELS: a folder searched for *.onnx, smallest first; the folder a file lies in is called its exporter. Every network
has a process of its own that ends after N seconds. Rows done before by the same code are taken from the cache, with
--keep rows of earlier code as well. Exit code 1 when a network fails.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
from datetime import date
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from network_rows import Comparison, Measurement, Row, page
from network_weights import enliven, negate_a_weight, random_inputs
from resumable import ROOT, ChildError, answer_of, measure_here, rows_of

if TYPE_CHECKING:
    import numpy as np

LIMIT_SECONDS = 1200
FELT = 1e-3  # a negated weight must change the outputs of a network that is worth comparing by that much
COUNTED = ("codesign", "passes", "hw_profiles")


def measure(model: Path, hardware: str) -> Measurement:
    """Compile one network, run it and its original on the same data, and the original with a wrong weight as well."""
    import onnx

    from codesign.compiler import compile

    clock: dict[str, float] = {}

    def on_step(stage: str, *_: object) -> None:
        clock.setdefault(stage, time.process_time())

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tried, enlivened = network_to_try(model, folder)
        clock["import"] = time.process_time()
        plan = compile(str(tried), hw=hardware, output=folder / "build", on_step=on_step).plan
        clock["end"] = time.process_time()
        compared = compare(folder, tried)
        exported = difference_as_exported(folder, model, hardware) if enlivened else None
    mapped = [layer for layer in plan.layers if layer.cost.mapping is not None]
    return Measurement(
        enlivened=enlivened,
        nodes=len(onnx.load(model, load_external_data=False).graph.node),
        layers=len(plan.layers),
        macs=plan.totals.macs,
        mapped=len(mapped),
        proven=sum(layer.cost.proven for layer in mapped),
        host=sum(layer.engine == "host" for layer in plan.layers),
        cycles=plan.totals.cycles,
        utilization=plan.totals.utilization,
        import_seconds=clock["mapping"] - clock["import"],
        plan_seconds=clock["scheduling"] - clock["mapping"],
        schedule_seconds=clock["building"] - clock["scheduling"],
        build_seconds=clock["end"] - clock["building"],
        compared=compared,
        as_exported=exported,
    )


def difference_as_exported(folder: Path, model: Path, hardware: str) -> float:
    """Of the outputs, between the file compiled as it is and the file itself. folder: gets another build."""
    import onnx

    from codesign.artifacts.onnx_runner import open_model
    from codesign.artifacts.verification import relative_difference
    from codesign.compiler import compile
    from codesign.lowering.runtime import load_library

    library = load_library(compile(str(model), hw=hardware, output=folder / "exported").folder)
    inputs = random_inputs(onnx.load(model))
    made = [tensor.name for tensor in library.interface.outputs]
    final, inner = open_model(model, made).run(inputs)
    truth, ours = {**final, **inner}, library.run(inputs)
    return max(relative_difference(ours[name], truth[name]) for name in made)


def network_to_try(model: Path, folder: Path) -> tuple[Path, bool]:
    """The file itself, or, where its outputs hardly depend on its first layer, a copy that does; and which of the two.

    folder: gets the copy, and `altered.onnx`: the same with one weight negated.
    """
    import onnx

    tried, altered = model, folder / "altered.onnx"
    for gain, place in product((0, 1, 2), (0, 1)):
        proto = onnx.load(model)
        if gain:
            enliven(proto, gain)
            tried = folder / model.name
            onnx.save(proto, tried)
        negate_a_weight(proto, place)
        onnx.save(proto, altered)
        if _difference(altered, tried) > FELT:
            break
    return tried, gain > 0


def _difference(altered: Path, model: Path) -> float:
    """Between what two models make, up to where the host takes over."""
    import onnx

    from codesign.artifacts.onnx_runner import open_model
    from codesign.artifacts.verification import relative_difference
    from codesign.importers.onnx_importer import load_onnx

    inputs = random_inputs(onnx.load(model))
    made = [str(value.name) for value in load_onnx(model).outputs]
    found, truth = ({**final, **inner} for final, inner in (open_model(p, made).run(inputs) for p in (altered, model)))
    return max(relative_difference(found[name], truth[name]) for name in made)


def compare(folder: Path, model: Path) -> Comparison:
    """The library in `folder`/build against the model it was made of, and against `altered.onnx` there.

    Where the host runs the end of the network, what the library hands over is compared, and the host's part is given
    the original's: among equal scores the smallest difference picks other boxes.
    """
    import onnx

    from codesign.artifacts.onnx_runner import open_model
    from codesign.artifacts.verification import relative_difference
    from codesign.lowering.interface import HOST_TAIL_FILE
    from codesign.lowering.runtime import load_library

    library = load_library(folder / "build")
    inputs = random_inputs(onnx.load(model))
    made = [tensor.name for tensor in library.interface.outputs]
    outputs, inner = open_model(model, [*made, *(tensor.name for tensor in library.interface.layers)]).run(inputs)
    truth = {**outputs, **inner}
    ours, layers = library.run(inputs), library.run_layers(inputs)
    if library.interface.host_tail:
        ours |= open_model(folder / "build" / HOST_TAIL_FILE).run({**inputs, **truth})[0]
    inside = {name: relative_difference(layers[name], inner[name]) for name in inner if name in layers}
    worst = max(inside, key=inside.__getitem__, default="-")
    final, before = open_model(folder / "altered.onnx", made).run(inputs)
    wrong = {**final, **before}
    return Comparison(
        outputs=max(relative_difference(ours[name], truth[name]) for name in {*outputs, *made}),
        layers=inside.get(worst, 0.0),
        worst_layer=worst,
        control=max(relative_difference(ours[name], wrong[name]) for name in made),
        spread=min(spread(truth[name]) for name in made),
    )


def spread(array: np.ndarray) -> float:
    """Standard deviation over largest magnitude; 1 for a single number, 0 for none and for equal ones."""
    import numpy as np

    if array.size < 2:
        return float(array.size)
    values = array.astype(np.float64)
    return float(values.std() / largest) if (largest := np.abs(values).max()) else 0.0


def code_version() -> str:
    """A digest of all code and machines: a row of other code is done again."""
    digest = hashlib.sha256()
    own = [Path(__file__), *Path(__file__).parent.glob("network_*.py")]
    counted = (path for folder in COUNTED for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml"))
    for path in sorted([*own, *counted]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def in_own_process(model: Path, hardware: str, limit_seconds: int) -> Measurement | str:
    """The measurement of one network, or why there is none."""
    command = [sys.executable, __file__, str(model.parent), "--hw", hardware, "--measure", model.name]
    try:
        answer = answer_of(command, limit_seconds)
    except ChildError as error:
        return error.said[-1].replace(f"{model.parent}{os.sep}", "")
    return Measurement.model_validate_json(answer.splitlines()[-1])


def run_all(files: list[Path], options: argparse.Namespace) -> None:
    """Fill the cache, smallest file first."""
    code = code_version()
    known = {row.key: row for row in rows_of(options.cache, Row)}
    options.cache.parent.mkdir(parents=True, exist_ok=True)
    for path in sorted(files, key=lambda path: path.stat().st_size):
        key = (path.relative_to(options.models).as_posix(), path.stat().st_size, options.hw)
        before = known.get(key)
        if before is not None and (before.code == code or (options.keep and not before.failure)):
            continue
        found = in_own_process(path, options.hw, options.limit_seconds)
        row = Row(
            file=key[0],
            file_bytes=key[1],
            hardware=key[2],
            code=code,
            day=date.today().isoformat(),
            problem=found if isinstance(found, str) else "",
            measurement=found if isinstance(found, Measurement) else None,
        )
        with options.cache.open("a", encoding="utf-8") as file:
            file.write(row.model_dump_json() + "\n")
        print(f"{row.file}: {row.failure or 'equal'}", file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--hw", default="edge_npu")
    parser.add_argument("--only", default="", help="names without .onnx, between commas")
    parser.add_argument("--limit-seconds", type=int, default=LIMIT_SECONDS, help="for one network")
    parser.add_argument("--keep", action="store_true", help="keep good rows of earlier code")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/evidence/networks.md")
    parser.add_argument("--cache", type=Path, default=ROOT / "build/evidence/networks.jsonl")
    parser.add_argument("--measure", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.measure:
        return measure_here(lambda: measure(options.models / options.measure, options.hw))
    wanted = set(filter(None, options.only.split(",")))
    files = [path for path in options.models.rglob("*.onnx") if not wanted or path.stem in wanted]
    if not files:
        print(f"{options.models}: no ONNX file called {options.only or '*.onnx'}", file=sys.stderr)
        return 2
    run_all(files, options)
    rows = sorted(
        {row.key: row for row in rows_of(options.cache, Row)}.values(), key=lambda row: (row.network, row.exporter)
    )
    rows = [row for row in rows if row.hardware == options.hw]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page(rows, options.hw), encoding="utf-8")
    failed = [row.file for row in rows if row.failure]
    print(f"{len(rows)} files; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
