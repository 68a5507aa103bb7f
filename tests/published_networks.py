"""Eleven published networks as layers, from their published structure alone: no file, no weights.

Each can be made narrower or for a smaller input, for tests that search a mapping for every layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil

from codesign.vocabulary import OperationKind
from codesign.workload.layer import Layer
from codesign.workload.loop_nest import LoopNest

Pair = tuple[int, int]


@dataclass
class Builder:
    """A network while it grows, one tensor of shape (1, channels, *size) after another.

    width: factor of every channel count but those of the input and of the classes. normalized: a convolution learns
    the scale and the shift of a normalisation, so no bias.
    """

    channels: int
    size: Pair
    width: Fraction = Fraction(1)
    normalized: bool = True
    layers: list[Layer] = field(default_factory=list)
    tensor: str = "input"

    @property
    def elements(self) -> int:
        """Of the tensor at hand."""
        return self.channels * self.size[0] * self.size[1]

    def scaled(self, channels: int) -> int:
        """A channel count at this width."""
        return max(1, int(channels * self.width))

    def convolution(
        self,
        outputs: int,
        kernel: int | Pair,
        stride: int = 1,
        pads: tuple[int, int, int, int] | None = None,
        *,
        relu: bool = True,
        normalized: bool | None = None,
        widened: bool = True,
    ) -> Builder:
        """A convolution, padded by half its kernel unless told otherwise, and its activation."""
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        outputs = self.scaled(outputs) if widened else outputs
        learned = 2 if (self.normalized if normalized is None else normalized) else 1
        sizes = (1, 1, outputs, self.channels)
        return self._swept(OperationKind.CONVOLUTION, sizes, (rows, columns), stride, pads, learned, relu)

    def depthwise(self, stride: int = 1) -> Builder:
        """A 3x3 convolution of every channel by itself, and its activation."""
        sizes = (1, self.channels, 1, 1)
        return self._swept(OperationKind.DEPTHWISE_CONVOLUTION, sizes, (3, 3), stride, None, 2, True)

    def _swept(
        self,
        kind: OperationKind,
        channels: tuple[int, int, int, int],
        kernel: Pair,
        stride: int,
        pads: tuple[int, int, int, int] | None,
        learned: int,
        relu: bool,
    ) -> Builder:
        pads = pads or (kernel[0] // 2, kernel[1] // 2, kernel[0] // 2, kernel[1] // 2)
        rows = (self.size[0] + pads[0] + pads[2] - kernel[0]) // stride + 1
        columns = (self.size[1] + pads[1] + pads[3] - kernel[1]) // stride + 1
        nest = LoopNest(kind, (*channels, rows, columns, *kernel), (stride, stride), (1, 1), pads, *self.size)
        _, groups, outputs, inputs = channels
        weights = groups * outputs * inputs * kernel[0] * kernel[1]
        self._append("Conv", nest, weights + learned * groups * outputs)
        self.channels, self.size = groups * outputs, (rows, columns)
        return self._activation() if relu else self

    def dense(self, outputs: int, *, relu: bool = True, widened: bool = True) -> Builder:
        """A fully connected layer over all elements, with bias, and its activation."""
        outputs = self.scaled(outputs) if widened else outputs
        inputs = self.elements
        self._append("Gemm", LoopNest(OperationKind.DENSE, (1, 1, outputs, inputs, 1, 1, 1, 1)), (inputs + 1) * outputs)
        self.channels, self.size = outputs, (1, 1)
        return self._activation() if relu else self

    def max_pool(self, kernel: int, stride: int, pad: int = 0, *, round_up: bool = False) -> Builder:
        """The largest of every window."""
        rounded = ceil if round_up else int
        rows, columns = (rounded(Fraction(extent + 2 * pad - kernel, stride)) + 1 for extent in self.size)
        return self._pooled(OperationKind.MAX_POOL, "MaxPool", (rows, columns), (kernel, kernel))

    def average_pool(self) -> Builder:
        """The mean of every channel."""
        return self._pooled(OperationKind.AVERAGE_POOL, "GlobalAveragePool", (1, 1), self.size)

    def _pooled(self, kind: OperationKind, op: str, size: Pair, window: Pair) -> Builder:
        read, self.size = self.elements, size
        sizes = (1, self.channels, 1, 1, *size, *window)
        work = self.elements * window[0] * window[1]
        nest = LoopNest(kind, sizes, input_elements=read, output_elements=self.elements, operations=work)
        return self._append(op, nest)

    def _activation(self) -> Builder:
        return self._streamed(OperationKind.ACTIVATION, "Relu", (self.tensor,), self.elements)

    def _streamed(self, kind: OperationKind, op: str, sources: tuple[str, ...], operations: int) -> Builder:
        sizes = (1, self.channels, 1, 1, *self.size, 1, 1)
        read = self.elements if op == "Concat" else self.elements * len(sources)
        nest = LoopNest(kind, sizes, input_elements=read, output_elements=self.elements, operations=operations)
        return self._append(op, nest, sources=sources)

    def _append(self, op: str, nest: LoopNest, parameters: int = 0, sources: tuple[str, ...] = ()) -> Builder:
        name = f"{len(self.layers)}_{op}"
        self.layers.append(Layer(name, op, nest, sources or (self.tensor,), (f"{name}_out",), parameters))
        self.tensor = f"{name}_out"
        return self

    def branch(self) -> Builder:
        """Another end of the network that starts at the tensor at hand; its layers join the same list."""
        return replace(self)

    def add(self, other: Builder, *, relu: bool = True) -> Builder:
        """The sum with the tensor at another end."""
        self._streamed(OperationKind.ELEMENTWISE, "Add", (self.tensor, other.tensor), self.elements)
        return self._activation() if relu else self

    def concatenate(self, other: Builder) -> Builder:
        """The channels of this end, then those of another one."""
        self.channels += other.channels
        return self._streamed(OperationKind.DATA_MOVEMENT, "Concat", (self.tensor, other.tensor), 0)


def lenet_300_100(net: Builder) -> None:
    """Two hidden layers."""
    net.dense(300).dense(100).dense(10, relu=False, widened=False)


def lenet_5(net: Builder) -> None:
    """Its second convolution reads all six maps, the first pads its 28x28 digits to 32x32."""
    net.convolution(6, 5).max_pool(2, 2).convolution(16, 5, 1, (0, 0, 0, 0)).max_pool(2, 2)
    net.dense(120).dense(84).dense(10, relu=False, widened=False)


def alexnet(net: Builder) -> None:
    """In one tower."""
    net.convolution(64, 11, 4, (2, 2, 2, 2)).max_pool(3, 2).convolution(192, 5).max_pool(3, 2)
    net.convolution(384, 3).convolution(256, 3).convolution(256, 3).max_pool(3, 2)
    net.dense(4096).dense(4096).dense(1000, relu=False, widened=False)


def vgg_11(net: Builder) -> None:
    """Configuration A."""
    for outputs, repeats in ((64, 1), (128, 1), (256, 2), (512, 2), (512, 2)):
        for _ in range(repeats):
            net.convolution(outputs, 3)
        net.max_pool(2, 2)
    net.dense(4096).dense(4096).dense(1000, relu=False, widened=False)


def _basic_block(net: Builder, outputs: int, stride: int, *, normalized: bool = True) -> None:
    shortcut = net.branch()
    if net.channels != net.scaled(outputs):
        shortcut.convolution(outputs, 1, stride, (0, 0, 0, 0), relu=False, normalized=normalized)
    net.convolution(outputs, 3, stride).convolution(outputs, 3, relu=False).add(shortcut)


def resnet_18(net: Builder) -> None:
    """Two basic blocks in each of four stages."""
    net.convolution(64, 7, 2).max_pool(3, 2, 1)
    for outputs in (64, 128, 256, 512):
        _basic_block(net, outputs, 1 if outputs == 64 else 2)
        _basic_block(net, outputs, 1)
    net.average_pool().dense(1000, relu=False, widened=False)


def resnet_8(net: Builder) -> None:
    """Of MLPerf Tiny: its shortcuts have a bias and no normalisation."""
    net.convolution(16, 3)
    for outputs in (16, 32, 64):
        _basic_block(net, outputs, 1 if outputs == 16 else 2, normalized=False)
    net.average_pool().dense(10, relu=False, widened=False)


def mobilenet_v1(net: Builder) -> None:
    """Thirteen pairs of a depthwise and a pointwise convolution."""
    net.convolution(32, 3, 2)
    for outputs, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2)):
        net.depthwise(stride).convolution(outputs, 1)
    net.depthwise().convolution(1024, 1).average_pool().dense(1000, relu=False, widened=False)


def mobilenet_v2(net: Builder) -> None:
    """Inverted bottlenecks: expansion, channels, repeats and stride of Table 2."""
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    net.convolution(32, 3, 2)
    for expansion, outputs, repeats, stride in stages:
        for number in range(repeats):
            shortcut = net.branch()
            if expansion > 1:
                net.convolution(net.channels * expansion, 1, widened=False)
            net.depthwise(stride if number == 0 else 1).convolution(outputs, 1, relu=False)
            if number:
                net.add(shortcut, relu=False)
    net.convolution(1280, 1).average_pool().dense(1000, relu=False, widened=False)


def squeezenet_1_1(net: Builder) -> None:
    """Fire modules: squeeze by 1x1, expand by 1x1 and 3x3 side by side."""
    net.convolution(64, 3, 2, (0, 0, 0, 0)).max_pool(3, 2, round_up=True)
    for squeezed, expanded, pooled in (
        *((16, 64, False), (16, 64, True), (32, 128, False), (32, 128, True)),
        *((48, 192, False), (48, 192, False), (64, 256, False), (64, 256, False)),
    ):
        net.convolution(squeezed, 1)
        wide = net.branch().convolution(expanded, 3)
        net.convolution(expanded, 1).concatenate(wide)
        if pooled:
            net.max_pool(3, 2, round_up=True)
    net.convolution(1000, 1, widened=False).average_pool()


def ds_cnn(net: Builder) -> None:
    """Keyword spotting of MLPerf Tiny: a 10x4 kernel over 49 frames of 10 coefficients."""
    net.convolution(64, (10, 4), 2, (4, 1, 5, 1))
    for _ in range(4):
        net.depthwise().convolution(64, 1)
    net.average_pool().dense(12, relu=False, widened=False)


def tiny_yolo(net: Builder) -> None:
    """Tiny YOLO v2 for the twenty classes of VOC: 5 boxes of 25 values in every cell."""
    for outputs in (16, 32, 64, 128, 256):
        net.convolution(outputs, 3).max_pool(2, 2)
    net.convolution(512, 3).convolution(1024, 3).convolution(1024, 3)
    net.convolution(125, 1, relu=False, normalized=False, widened=False)


@dataclass(frozen=True)
class Published:
    """A network with its published counts.

    size: rows and columns of its input; small: of a small input that still passes every layer. rounding: of `macs` as
    published. parameters: learned values, None where no count was found.
    """

    build: Callable[[Builder], None]
    channels: int
    size: Pair
    small: Pair
    macs: float
    parameters: int | None
    source: str
    rounding: float = 0
    normalized: bool = True

    def layers(self, *, small: bool = False, width: Fraction = Fraction(1)) -> list[Layer]:
        """The layers, in the order in which they run."""
        net = Builder(self.channels, self.small if small else self.size, width, self.normalized)
        self.build(net)
        return net.layers


TINY = "mlcommons/tiny benchmark/training"
PUBLISHED = {
    "lenet_300_100": Published(
        *(lenet_300_100, 784, (1, 1), (1, 1), 266_200, 266_610),
        "267 K values: Han et al., NIPS 2015, Table 1; a MAC for each but the 410 biases",
    ),
    "lenet_5": Published(
        *(lenet_5, 1, (28, 28), (28, 28), 416_520, 61_706),
        "LeCun et al., 1998, with all maps connected, counted from PyTorch",
        normalized=False,
    ),
    "alexnet": Published(
        *(alexnet, 3, (224, 224), (64, 64), 714_188_480, 61_100_840), "torchvision alexnet", normalized=False
    ),
    "vgg_11": Published(
        *(vgg_11, 3, (224, 224), (32, 32), 7.61e9, 132_863_336),
        "torchvision VGG11_Weights: 7.61 G",
        rounding=0.005e9,
        normalized=False,
    ),
    "resnet_18": Published(resnet_18, 3, (224, 224), (32, 32), 1_814_073_344, 11_689_512, "torchvision resnet18"),
    "resnet_8": Published(
        *(resnet_8, 3, (32, 32), (32, 32), 12_501_632, 78_666 - 2 * 240 - 240),
        f"{TINY}/image_classification: 78,666 values, 480 of them statistics, 240 biases that a normalisation undoes",
    ),
    "mobilenet_v1": Published(mobilenet_v1, 3, (224, 224), (32, 32), 568_740_352, 4_231_976, "timm mobilenetv1_100"),
    "mobilenet_v2": Published(
        mobilenet_v2, 3, (224, 224), (32, 32), 300_774_272, 3_504_872, "torchvision mobilenet_v2"
    ),
    "squeezenet_1_1": Published(
        *(squeezenet_1_1, 3, (224, 224), (32, 32), 349_151_936, 1_235_496),
        "torchvision squeezenet1_1",
        normalized=False,
    ),
    "ds_cnn": Published(
        *(ds_cnn, 1, (49, 10), (49, 10), 2_656_768, 24_908 - 2 * 576 - 576),
        f"{TINY}/keyword_spotting: 24,908 values, 1,152 of them statistics, 576 biases that a normalisation undoes",
    ),
    "tiny_yolo": Published(
        *(tiny_yolo, 3, (416, 416), (64, 64), 6.97e9 / 2, None),
        "6.97 G operations: pjreddie.com/darknet/yolov2 and AMD PG338 v1.2 Table 11",
        rounding=0.005e9 / 2,
    ),
}
