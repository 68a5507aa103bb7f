"""The arguments and options of the command line, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="An .onnx or .pt2 file.")]
BuildArgument = Annotated[Path, typer.Argument(metavar="BUILD", help="A folder `codesign compile` wrote.")]
MachineArgument = Annotated[str, typer.Argument(metavar="NAME|FILE", help="A machine by name, or its YAML file.")]
TargetArgument = Annotated[Path, typer.Argument(metavar="TARGET", help="The file to write.")]
PassArgument = Annotated[str, typer.Argument(metavar="NAME", help="A pass or a pipeline.")]
NetworkArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", help="A network of `codesign networks list`, or timm:NAME, torchvision:NAME, ..."),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of the random weights.")]
ImageOption = Annotated[
    str | None, typer.Option("--image", metavar="3x128x128", help="Channels, rows, columns; else the network's own.")
]
ClassesOption = Annotated[int | None, typer.Option("--classes", min=1, help="Outputs; else the network's own.")]
BoardOption = Annotated[
    str, typer.Option("--board", metavar="NAME|FILE", help="The FPGA; `codesign hw boards` shows them.")
]
PackedOption = Annotated[bool, typer.Option("--packed", help="Put several narrow products into one DSP slice.")]
PumpedOption = Annotated[bool, typer.Option("--double-pumped", help="Run DSP slices at twice the clock.")]
BitsOption = Annotated[int, typer.Option("--bits", min=1, max=16, help="Of every weight and every activation.")]
ClockOption = Annotated[float, typer.Option("--clock-mhz", min=1, max=2000, help="The clock of all stages.")]
ShareOption = Annotated[int, typer.Option("--share", min=1, max=100, help="Percent of the board to use at most.")]
HwOption = Annotated[str, typer.Option("--hw", metavar="NAME|FILE", help="The machine; `codesign hw list` shows them.")]
OutputOption = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="DIR", help="Folder to write; an earlier build there is replaced."),
]
PassesOption = Annotated[
    str | None,
    typer.Option("--passes", metavar="NAMES", help="A pipeline, or passes: a,b{option=value}; else the machine's."),
]
ObjectiveOption = Annotated[
    str, typer.Option("--objective", metavar="WHAT", help="latency, energy, edp, or `1*latency+2*energy`.")
]
ShapeOption = Annotated[
    list[str] | None, typer.Option("--input-shape", metavar="NAME=1x3x224x224", help="Fix open sizes; may be repeated.")
]
MappingOption = Annotated[
    Path | None,
    typer.Option("--mapping", metavar="FILE", help="Mappings of layers to take as they are, and constraints."),
]
WriteMappingOption = Annotated[
    Path | None, typer.Option("--write-mapping", metavar="FILE", help="Write every layer's mapping, to edit it.")
]
LimitOption = Annotated[
    str | None,
    typer.Option("--sram-limit", metavar="BYTES|KiB", help="Fail unless all activations fit: 327680, 320KiB, 0.5MiB."),
]
EmitOption = Annotated[
    str,
    typer.Option("--emit", metavar="KINDS", help="What to build, separated by commas: so (a library), c (sources)."),
]
PrefixOption = Annotated[
    str, typer.Option("--c-prefix", metavar="NAME", help="What names in the C sources begin with.")
]
CalibrationOption = Annotated[
    str | None,
    typer.Option("--calibration", metavar="FILE|synthetic", help="Inputs to measure activations on, .npz or .npy."),
]
RequantizeOption = Annotated[
    Literal["power-of-two"] | None,
    typer.Option("--requantize", help="Give a model that is quantised already scales that need shifts alone."),
]
NoHostOption = Annotated[bool, typer.Option("--no-host", help="Fail when an operator would run on the host.")]
StopOption = Annotated[str | None, typer.Option("--stop-after", metavar="PASS", help="The last pass to run.")]
DumpOption = Annotated[
    Path | None, typer.Option("--dump-graphs", metavar="DIR", help="Write the network after every pass.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", metavar="COUNT", min=1, help="Of a processor's library; else one a core.")
]
TuneOption = Annotated[
    int,
    typer.Option("--tune", metavar="TRIALS", min=0, help="Of every distinct layer, measured here; kept for later."),
]
BuildTargetOption = Annotated[
    str | None,
    typer.Option("--target", metavar="TRIPLE[:CPU]", help="The machine of model.so: aarch64-linux-gnu; else this one."),
]
LayerOption = Annotated[
    list[str] | None, typer.Option("--layer", metavar="NAME", help="A layer to explain; may be repeated.")
]
TopOption = Annotated[int, typer.Option("--top", metavar="COUNT", min=1, help="How many layers, the costliest first.")]
InputOption = Annotated[Path, typer.Option("--input", metavar="FILE", help="Arrays by tensor name, .npz.")]
ResultOption = Annotated[Path, typer.Option("--output", metavar="FILE", help="Where the outputs go, .npz.")]
DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="FILE", help="Arrays by tensor name, .npz; random ones otherwise.")
]
SamplesOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="FILE", help="Inputs to compare outputs on, .npz or .npy; random ones otherwise."),
]
PageOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write one page with all of it, over an earlier one.")
]
ReasonsOption = Annotated[bool, typer.Option("--reasons", help="Print every place a rewrite declined, and why.")]
OriginalOption = Annotated[
    Path | None, typer.Option("--model", metavar="FILE", help="The original model, when it has moved.")
]
SpaceArgument = Annotated[Path, typer.Argument(metavar="SPACE", help="A YAML file with generator and coefficients.")]
TrainingDataOption = Annotated[
    str, typer.Option("--data", metavar="NAME", help="What to train on: digits, or folder:PATH, a folder per class.")
]
RunOption = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the run; it goes on there.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A folder `codesign search` wrote.")]
OtherRunArgument = Annotated[Path | None, typer.Argument(metavar="OTHER", help="Another one, to compare with.")]
AxesOption = Annotated[
    str, typer.Option("--axes", metavar="NAMES", help="Groups by parameters, macs, cycles, energy, sram, dram: a,b.")
]
GroupsOption = Annotated[
    int | None, typer.Option("--groups", metavar="COUNT", min=1, help="How many; else so that each has four.")
]
EpochsOption = Annotated[int, typer.Option("--epochs-per-round", metavar="COUNT", min=1, help="Epochs of a round.")]
RoundsOption = Annotated[int, typer.Option("--rounds", metavar="COUNT", min=1, help="Rounds of training.")]
CriterionOption = Annotated[
    Literal["average", "last"], typer.Option("--criterion", help="What eliminations go by: accuracy from epoch 1 on.")
]
StrategyOption = Annotated[
    Literal["tournament", "aging_evolution", "random"], typer.Option("--strategy", help="Which candidates are trained.")
]
CutOption = Annotated[
    str | None,
    typer.Option("--first-cut", metavar="PROXY", help="Halve the groups untrained: synflow, grad_norm, snip."),
]
TrialsOption = Annotated[
    int, typer.Option("--trials", metavar="COUNT", min=1, help="Networks of the strategies but the tournament.")
]
PopulationOption = Annotated[int, typer.Option("--population", metavar="COUNT", min=1, help="Of aging evolution.")]
SampleOption = Annotated[int, typer.Option("--sample", metavar="COUNT", min=1, help="Parents aging evolution draws.")]
RecipeOption = Annotated[
    Literal["small", "paper"], typer.Option("--recipe", help="How to train: for small data, or as the paper does.")
]
SearchSeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of weights, order of images, and strategy.")]
WorkersOption = Annotated[
    int, typer.Option("--workers", metavar="COUNT", min=1, help="Candidates trained at a time, on this machine.")
]
RayOption = Annotated[bool, typer.Option("--ray", help="Train on Ray: $RAY_ADDRESS, else a cluster of this machine.")]
