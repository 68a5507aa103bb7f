"""What goes into and comes out of a built library: stored beside it, so that it can be run without the model."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from pydantic import BaseModel, ConfigDict, ValidationError

from codesign.errors import CodesignError
from codesign.graph.graph import shape_of

LIBRARY_FILE = "model.so"
INTERFACE_FILE = "interface.json"
HOST_TAIL_FILE = "host_tail.onnx"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tensor(_Part):
    """A tensor by the name it has in the model. dtype: numpy's name."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, value: ir.Value) -> Tensor:
        """The tensor a value of the graph holds. Raises ValueError when shape or type is unknown."""
        if value.dtype is None:
            raise ValueError(f"{value.name}: its type is unknown")
        return cls(name=str(value.name), shape=shape_of(value), dtype=str(value.dtype.numpy()))

    def __str__(self) -> str:
        return f"{self.name} ({self.dtype} {'x'.join(map(str, self.shape)) or 'scalar'})"


class Interface(_Part):
    """inputs, outputs: of `main`. layers: what `main_layers` returns after the outputs. cpu: LLVM's name of the
    processor the code was made for. host_tail: the outputs feed the model in HOST_TAIL_FILE. threads: None, one a
    core. target: the triple of another kind of machine it was built for."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    layers: tuple[Tensor, ...]
    cpu: str = ""
    host_tail: bool = False
    threads: int | None = None
    target: str = ""

    def write(self, folder: Path) -> None:
        """Store it beside the library."""
        (folder / INTERFACE_FILE).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Interface:
        """The interface of the library in a build folder. Raises CodesignError when it is missing or damaged."""
        path = folder / INTERFACE_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise CodesignError(str(path), "no such file", "give a folder that `codesign compile` wrote") from None
        except (ValidationError, OSError) as error:
            raise CodesignError(str(path), "is damaged", "compile the model again") from error
