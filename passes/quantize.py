"""quantize: a float network becomes one of integers, with power-of-two scales."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from codesign.errors import CodesignError
from codesign.graph.graph import Graph, node_name
from codesign.graph.operators import is_operator
from codesign.graph.samples import Samples, fitted
from codesign.quantization.equalization import Equalized, equalize
from codesign.quantization.images import Pixels, fold_image
from codesign.quantization.noise import Fed
from codesign.quantization.norms import norms_as_layers
from codesign.quantization.precision import Widened, found_wide, named_wide
from codesign.quantization.quantizer import Calibrated, Choices, Formats, calibrate, choose, measured, write
from codesign.quantization.recording import Stages, record_of
from codesign.rewriting.graph_pass import Applied, Declined, Effect, GraphPass, Outcome, PassContext


@dataclass(frozen=True)
class Quantize(GraphPass):
    """Turns weights and activations into 8-bit integers, biases and sums into 32-bit ones; every scale is a power of 2.

    before:  x -> Conv(W, b) -> Relu -> y
    after:   x -> Q -> DQ -> Conv(DQ(W int8), DQ(b int32)) -> Relu -> y -> Q -> DQ

    Q is QuantizeLinear, DQ DequantizeLinear: a form that every ONNX runtime runs in float, and an integer machine with
    int8 products, int32 sums, and a shift that rounds half to even. Zero points are 0. Between a DQ and a Q lies one
    integer layer: a convolution or dense layer with its bias and Relu or Clip; an addition, subtraction,
    multiplication or matrix product of two tensors; a mean; a linear resize; Softmax; or element-wise nodes of one
    tensor, which are a table of 256 entries. What moves codes (Reshape, Concat, MaxPool, ...) has one scale on both
    sides. Everything else stays float, and is listed as declined.

    Not exact: every tensor is rounded. The report says how much of the signal is left (SQNR) tensor by tensor.

    Activations are measured on calibration data (`--calibration`). The range of a tensor is the power of two with the
    least squared error over that data, saturated numbers included; that of weights likewise, for every output channel.
    Where int32 sums or biases could overflow, weights of that channel become coarser. Equalisation moves powers of two
    from channel to channel between a convolution, a Relu or the like, and the next convolution. A bias takes back what
    rounding adds to the mean of its channel. Run the passes that fold BatchNormalization before; what folds nowhere
    becomes a depthwise convolution.

    Where 8 bits lose too much, `int16` names layers whose results have 16, or finds as few as reach `sqnr_db`. A
    network that takes (pixel - mean) x scale may take the uint8 pixels themselves, RESHAPES then: `image_mean='127'`,
    `image_scale='0.0078125'`, or one number per channel (`'124;116;104'`). That is exact where the padding of the
    first layer is the zero point, so where all means are one whole number, or nothing is padded; elsewhere the outcome
    says that borders are approximate. A detector that decodes boxes behind its last convolutions wants
    `outputs=float`.

    Source: Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
    CVPR 2018, arXiv:1712.05877; Huang et al., eCNN, MICRO 2019, arXiv:1910.05680 (powers of two, least error); Nagel et
    al., ICCV 2019, arXiv:1906.04721 (equalisation, bias correction).
    """

    name: ClassVar[str] = "quantize"
    effect: ClassVar[Effect] = Effect.APPROXIMATE
    reads_calibration: ClassVar[bool] = True

    range: Annotated[
        Literal["least-squares", "maximum"], "ranges of least squared error, or those that saturate nothing"
    ] = "least-squares"
    weights: Annotated[Literal["per-channel", "per-tensor"], "how many scales the weights of a layer have"] = (
        "per-channel"
    )
    equalize: Annotated[bool, "scale channels alike between layers first"] = True
    correct_bias: Annotated[bool, "take the mean shift that rounding causes off biases"] = True
    outputs: Annotated[
        Literal["int8", "float"], "what lies behind the last layers with weights: integer layers too, or float nodes"
    ] = "int8"

    int16: Annotated[
        str, "layers whose results have 16 bits, separated by ; or, with auto, as few as reach sqnr_db"
    ] = ""
    sqnr_db: Annotated[float, "with int16=auto: signal to noise every output must reach, in dB"] = 30.0

    image_mean: Annotated[
        str, "takes uint8 pixels: what the float network's input has subtracted, one number or one per channel, by ;"
    ] = ""
    image_scale: Annotated[str, "takes uint8 pixels: what it was multiplied by then"] = ""

    def __post_init__(self) -> None:
        _ = self._pixels  # raises ValueError for what are no numbers

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        """Quantise the whole network, and measure what that does to every tensor."""
        if any(is_operator(node, "QuantizeLinear", "DequantizeLinear", "QLinearConv") for node in graph.nodes):
            return [Declined(graph.name, "it is quantised already")]
        samples = _samples(graph, context)
        original, choices = Fed(graph.copy(), samples.runs), self._choices
        outcomes: list[Outcome] = []
        if self._pixels is not None:
            samples, image = fold_image(graph, samples, self._pixels)
            choices = replace(choices, fixed={image.name: image.form})
            outcomes.append(Applied(image.where, image.detail))
        outcomes += [Applied(name, "became a depthwise convolution") for name in norms_as_layers(graph)]
        outcomes += self._equalized(graph, samples)
        float_form = Fed(graph.copy(), samples.runs)
        calibrated = calibrate(graph, samples, choices)
        if not calibrated.division.islands:
            return [*outcomes, *_kept(calibrated)]
        widened = self._widened(calibrated, choices, original)
        formats = choose(calibrated, choices, widened.found)
        outcomes += [*_layers(calibrated, formats), *self._missed(graph, widened)]
        write(calibrated, formats, choices)
        stages = Stages(original, float_form, Fed(graph, choices.runs(samples)))
        return [*outcomes, *_kept(calibrated), record_of(stages, calibrated, formats)]

    def _widened(self, calibrated: Calibrated, choices: Choices, original: Fed) -> Widened:
        narrow = measured(calibrated, choices)
        if self.int16 == "auto":
            return found_wide(calibrated, choices, narrow, original, self.sqnr_db)
        names = [name.strip() for name in re.split("[,;]", self.int16) if name.strip()]
        return named_wide(calibrated, choices, narrow, names) if names else Widened(narrow, ())

    def _missed(self, graph: Graph, widened: Widened) -> Iterator[Declined]:
        if widened.sqnr_db is not None and widened.sqnr_db < self.sqnr_db:
            reason = f"{widened.sqnr_db:.1f} dB at the output is all that 16-bit activations give, not {self.sqnr_db:g}"
            yield Declined(graph.name, f"{reason}; the rest is the noise of 8-bit weights and tables")

    @property
    def effect_here(self) -> Effect:
        """With pixels as input the network is another one to whoever runs it."""
        return self.effect if self._pixels is None else Effect.RESHAPES

    @property
    def _pixels(self) -> Pixels | None:
        return Pixels.of(self.image_mean, self.image_scale) if self.image_mean or self.image_scale else None

    @property
    def _choices(self) -> Choices:
        return Choices(
            least_squares=self.range == "least-squares",
            per_channel=self.weights == "per-channel",
            correct_bias=self.correct_bias,
            float_ends=self.outputs == "float",
        )

    def _equalized(self, graph: Graph, samples: Samples) -> Iterator[Outcome]:
        if not self.equalize:
            return
        for found in equalize(graph, samples, per_channel=self.weights == "per-channel"):
            if isinstance(found, Equalized):
                yield Applied(found.pair, str(found))
            else:
                yield Declined(found.pair, f"not equalised: {found.reason}")


def _samples(graph: Graph, context: PassContext) -> Samples:
    """Raises CodesignError when there are none, or they do not fit."""
    if context.calibration is None:
        hint = "give inputs with --calibration FILE.npz, or --calibration synthetic to try it without"
        raise CodesignError("quantize", "it measures activations on calibration data, and there is none", hint)
    return fitted(context.calibration, graph)


def _layers(calibrated: Calibrated, formats: Formats) -> Iterator[Applied]:
    """One entry for every integer layer."""
    coarser = {rounded.layer.node: rounded.codes.coarser for rounded in formats.layers}
    for island in calibrated.division.islands:
        forms = ", ".join(dict.fromkeys(str(formats.form(str(value.name))) for value in island.outputs))
        count = coarser.get(island.nodes[0], 0)
        more = f"; weights of {count} channels coarser, so that sums stay within 32 bits" if count else ""
        yield Applied(island.name, f"{island.kind}, {forms}{more}")


def _kept(calibrated: Calibrated) -> Iterator[Declined]:
    for item in calibrated.division.floats:
        yield Declined(node_name(item.node), f"stays float: {item.reason}")
