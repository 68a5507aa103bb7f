"""Runs ZigZag on layers of a network on machine A, where ZigZag is installed: started by `bench_mapper.py`.

    /path/to/python benchmarks/zigzag/search.py LAYERS.json

LAYERS.json: a list of [name, [rows, columns, kernel rows, kernel columns, inputs, outputs, stride]]. Prints one line of
JSON a layer: name, energy_pj, cycles, cpu_seconds, version. For EDP, by LOMA with at most 6 loop factors, its default.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from zigzag.api import get_hardware_performance_zigzag  # type: ignore[import-not-found]

HERE = Path(__file__).resolve().parent


def workload(name: str, shape: list[int]) -> list[dict[str, Any]]:
    """One layer without padding: stored padding counts as data in the mapping problems."""
    rows, columns, tall, wide, inputs, outputs, stride = shape
    return [
        {
            "id": 0,
            "name": name,
            "operator_type": "Conv",
            "equation": "O[b][g][k][oy][ox]+=W[g][k][c][fy][fx]*I[b][g][c][iy][ix]",
            "dimension_relations": [f"ix={stride}*ox+1*fx", f"iy={stride}*oy+1*fy"],
            "loop_dims": ["B", "K", "G", "OX", "OY", "C", "FX", "FY"],
            "loop_sizes": [1, outputs, 1, columns, rows, inputs, wide, tall],
            "operand_precision": {"W": 8, "I": 8, "O": 32, "O_final": 8},
            "operand_source": {"I": 0, "W": 0},
        }
    ]


def searched(name: str, shape: list[int], folder: Path) -> dict[str, Any]:
    """One search."""
    path = folder / "layer.yaml"
    path.write_text(json.dumps(workload(name, shape)), encoding="utf-8")  # JSON is YAML
    began = time.process_time()
    energy, latency, _ = get_hardware_performance_zigzag(
        workload=str(path),
        accelerator=str(HERE / "machine_a.yaml"),
        mapping=str(HERE / "mapping_a.yaml"),
        opt="EDP",
        dump_folder=str(folder / "out"),
        loma_show_progress_bar=False,
    )
    seconds = time.process_time() - began
    return {
        "name": name,
        "energy_pj": float(energy),
        "cycles": float(latency),
        "cpu_seconds": seconds,
        "version": version("zigzag-dse"),
    }


def main() -> None:
    logging.disable(logging.INFO)
    layers = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in layers:
            print(json.dumps(searched(name, shape, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
