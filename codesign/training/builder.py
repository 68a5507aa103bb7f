"""What an operator's conversion works with: values that are known, named weights, and the torch.fx graph to grow."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, node_name, shape_of
from codesign.graph.operators import optional_input
from codesign.training.batch import Batch


class UnsupportedError(Exception):
    """This form of an operator has no counterpart; the text says which form."""


@dataclass
class Builder:
    """A torch.fx graph under construction; torch is handed in, so that nothing here imports it.

    known: the torch.fx node of every ONNX value so far. root: gets one submodule per node with weights.
    """

    torch: ModuleType
    graph: Graph
    batch: Batch
    fx: Any
    root: Any
    known: dict[ir.Value, Any] = field(default_factory=dict)
    _parameters: dict[ir.Value, Any] = field(default_factory=dict)
    _holders: dict[ir.Node, str] = field(default_factory=dict)

    @property
    def functional(self) -> Any:
        """torch.nn.functional."""
        return self.torch.nn.functional

    def call(self, function: Any, *arguments: Any, **options: Any) -> Any:
        """A call of a function in the graph."""
        return self.fx.call_function(function, arguments, options)

    def method(self, name: str, *arguments: Any) -> Any:
        """A call of a tensor's method in the graph."""
        return self.fx.call_method(name, arguments)

    def layer(self, node: ir.Node, module: Any, *arguments: Any) -> Any:
        """A call of a submodule that holds the node's weights."""
        name = self._free_name(node)
        self.root.add_module(name, module)
        return self.fx.call_module(name, arguments)

    def _free_name(self, node: ir.Node) -> str:
        """The node's name as a Python identifier, which a module's name must be to be read easily."""
        return _free(self.root, identifier(node_name(node)))

    def parameter(self, value: ir.Value) -> Any:
        """The trainable parameter of a constant: one and the same for all nodes that read it."""
        if value not in self._parameters:
            tensor = self.tensor(value)
            if not tensor.is_floating_point():
                raise UnsupportedError(f"with weights of type {value.dtype}")
            self._parameters[value] = self.torch.nn.Parameter(tensor)
        return self._parameters[value]

    def parameter_names(self) -> dict[str, str]:
        """How the module calls the parameter of every constant that has one."""
        names = {id(parameter): name for name, parameter in self.root.named_parameters()}
        held = ((value, names.get(id(parameter))) for value, parameter in self._parameters.items())
        return {str(value.name): name for value, name in held if name is not None}

    def tensor(self, value: ir.Value | None) -> Any:
        """A constant as a tensor of its own memory. Raises UnsupportedError when it is computed."""
        array = constant_of(value)
        if array is None:
            raise UnsupportedError("with weights that are computed")
        try:
            return self.torch.from_numpy(np.array(array))
        except TypeError as error:
            raise UnsupportedError(f"with a constant of type {array.dtype}") from error

    def weight(self, node: ir.Node, value: ir.Value) -> Any:
        """A constant as the parameter `NODE.weight`."""
        return self._hold(node, "weight", self.parameter(value))

    def constant(self, node: ir.Node, value: ir.Value) -> Any:
        """A constant as the buffer `NODE.constant`, which training leaves alone."""
        return self.buffer(node, "constant", self.tensor(value))

    def buffer(self, node: ir.Node, name: str, tensor: Any) -> Any:
        """A tensor that belongs to the node but is no weight, as `NODE.name`."""
        return self._hold(node, name, tensor)

    def _hold(self, node: ir.Node, attribute: str, tensor: Any) -> Any:
        """`tensor` as an attribute of the node's submodule, numbered from the second of a name on."""
        if node not in self._holders:
            self._holders[node] = self._free_name(node)
            self.root.add_module(self._holders[node], self.torch.nn.Module())
        name = self._holders[node]
        holder = getattr(self.root, name)
        attribute = _free(holder, attribute)
        if isinstance(tensor, self.torch.nn.Parameter):
            holder.register_parameter(attribute, tensor)
        else:
            holder.register_buffer(attribute, tensor)
        return self.fx.get_attr(f"{name}.{attribute}")

    def operand(self, node: ir.Node, index: int, *, trained: bool = False) -> Any:
        """An input, None where it is left out.

        trained: whether this operator's constants are weights. Single numbers and infinities (masks) never are; a
        single number that broadcasts is written as itself.
        """
        value = optional_input(node, index)
        if value is None or value in self.known:
            return None if value is None else self.known[value]
        array = constant_of(value)
        if array is None or array.dtype.kind != "f":
            return self.constant(node, value)
        if array.size == 1 and self._broadcasts(node, array.ndim):
            return array.item()
        trained = trained and array.size > 1 and bool(np.isfinite(array).all())
        return self.weight(node, value) if trained else self.constant(node, value)

    def _broadcasts(self, node: ir.Node, rank: int) -> bool:
        """Whether another operand already says the shape, so that a plain number does for a constant of `rank`."""
        return any(value in self.known and len(shape_of(value)) >= rank for value in node.inputs if value is not None)

    def x(self, node: ir.Node) -> Any:
        """The first input, whatever it is."""
        return self.operand(node, 0)

    def axis(self, value: ir.Value | None) -> int | None:
        """The axis that takes any number of samples, if there is one."""
        return None if value is None else self.batch.axes.get(value)


def _free(module: Any, base: str) -> str:
    """`base`, or with the first number that makes it new among the module's attributes."""
    name, number = base, 2
    while hasattr(module, name):
        name, number = f"{base}_{number}", number + 1
    return name


def identifier(text: str) -> str:
    """`/stem/conv/Conv` -> `stem_conv_Conv`."""
    name = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "node"
    return f"_{name}" if name[0].isdigit() else name


def x_of(node: ir.Node) -> ir.Value:
    """The first input, which must be there."""
    value = node.inputs[0]
    assert value is not None
    return value


def integers(node: ir.Node, index: int) -> list[int] | None:
    """An optional input of integers. Raises UnsupportedError when it is computed."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return None
    array = constant_of(value)
    if array is None:
        raise UnsupportedError(f"with {value.name} computed")
    return [int(number) for number in array.reshape(-1)]
