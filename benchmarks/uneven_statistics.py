"""BatchNorm statistics for an untrained network: those its own activations have, and scales as uneven as trained ones.

A trained network's normalisations have the mean and variance of what they read, and scales that differ much from
channel to channel; folded into depthwise filters they make ranges uneven, which is what post-training quantisation
fails on (Nagel et al., ICCV 2019, figure 2).
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from network_weights import random_inputs
from onnx import numpy_helper

SEED = 3
LEAST_VARIANCE = 1e-4
SHIFT = 1.0


def make_uneven(model: onnx.ModelProto, spread: float, seed: int = SEED) -> int:
    """Give every BatchNormalization the statistics of what it reads, and scales exp(spread x normal), in place.

    Shifts are normal around the scale, with half of it as deviation: most of what a Relu reads is positive, or rounding
    grows from layer to layer until nothing of the signal is left, as in no trained network. spread: 0 gives all
    channels the scale 1. Returns how many normalisations there are. They are done in order, each on the network as it
    is by then.
    """
    generator = np.random.default_rng(seed)
    inputs = random_inputs(model)
    count = 0
    for place, node in enumerate(model.graph.node):
        if node.op_type != "BatchNormalization":
            continue
        read = _tensor_before(model, place, inputs)
        axes = tuple(axis for axis in range(read.ndim) if axis != 1)
        scale = np.exp(spread * generator.standard_normal(read.shape[1]))
        shift = scale * (SHIFT + generator.standard_normal(read.shape[1]) / 2)
        variance = np.maximum(read.var(axis=axes), LEAST_VARIANCE)
        for at, values in enumerate((scale, shift, read.mean(axis=axes), variance), 1):
            node.input[at] = f"{node.output[0]}.statistics_{at}"  # exporters store equal ones once
            model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.input[at]))
        count += 1
    return count


def _tensor_before(model: onnx.ModelProto, place: int, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """What node `place` reads, by the nodes before it."""
    name = model.graph.node[place].input[0]
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.node[place:]
    del part.graph.output[:]
    part.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([name], inputs)[0])
