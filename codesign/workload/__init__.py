"""Workload: a network as loop nests, independent of any machine."""

from codesign.workload.layers import layers_of, nest_of, parameters_of

__all__ = ["layers_of", "nest_of", "parameters_of"]
