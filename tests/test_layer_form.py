"""What an engine sees of a layer: matrix products of the layer's MACs, mapped once where they are the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from codesign.hardware.loading import load_profile
from codesign.hardware.sections import LayerForm
from codesign.mapping.layer_form import nest_on
from codesign.mapping.mapper import Objective
from codesign.planning.placement import Placer
from codesign.vocabulary import MATRIX_PRODUCTS, Operand, OperationKind
from codesign.workload.layer import Layer
from codesign.workload.loop_nest import LoopNest
from tests.machines import nests


@given(nests(largest=12))
def test_a_matrix_product_has_the_macs_and_the_im2col_matrix_of_its_layer(nest: LoopNest) -> None:
    batch, groups, outputs, channels, rows, columns, tall, wide = nest.sizes
    product = nest.as_matrix_product()
    assert product.macs == nest.macs and product.kind is nest.kind
    assert product.sizes == (1, groups, outputs, channels * tall * wide, 1, batch * rows * columns, 1, 1)
    assert product.elements(Operand.INPUTS) == groups * channels * tall * wide * batch * rows * columns
    for operand in (Operand.WEIGHTS, Operand.OUTPUTS):
        assert product.elements(operand) == nest.elements(operand)
    assert product.as_matrix_product() == product


@pytest.mark.parametrize("kind", sorted(set(OperationKind) - MATRIX_PRODUCTS))
def test_what_is_no_matrix_product_is_refused(kind: OperationKind) -> None:
    nest = LoopNest(kind, (1, 1, 2, 3, 4, 4, 1, 1), input_rows=4, input_columns=4)
    with pytest.raises(ValueError, match=f"^{kind} is no matrix product$"):
        nest.as_matrix_product()


def test_an_engine_sees_what_it_runs_in_its_own_form() -> None:
    engine = load_profile("systolic_ws").profile.engines["array"]
    nest = LoopNest(OperationKind.CONVOLUTION, (1, 1, 2, 3, 4, 4, 3, 3), input_rows=6, input_columns=6)
    transposed = replace(nest, kind=OperationKind.TRANSPOSED_CONVOLUTION)
    assert nest_on(engine, nest).sizes == (1, 1, 2, 27, 1, 16, 1, 1)
    assert nest_on(engine, transposed) is transposed
    assert nest_on(engine.model_copy(update={"layer_form": LayerForm.LOOPS}), nest) is nest


def test_layers_that_are_the_same_product_are_mapped_once() -> None:
    """A 3x3 kernel over 2 channels and a 1x1 kernel over 18 are the same product of as many pixels."""
    wide = LoopNest(OperationKind.CONVOLUTION, (1, 1, 4, 2, 5, 5, 3, 3), (2, 2), input_rows=11, input_columns=11)
    deep = LoopNest(OperationKind.CONVOLUTION, (1, 1, 4, 18, 5, 5, 1, 1), input_rows=5, input_columns=5)
    placer = Placer(load_profile("systolic_ws").profile, Objective.LATENCY, "test")
    first, second = (
        placer.place(Layer(name, "Conv", nest, ("x",), ("y",))) for name, nest in (("wide", wide), ("deep", deep))
    )
    assert (second.repeats_of, second.cost, second.layer.nest) == ("wide", first.cost, first.layer.nest)
    apart = Placer(load_profile("edge_npu").profile, Objective.LATENCY, "test")
    assert not [apart.place(Layer(str(nest), "Conv", nest, ("x",), ("y",))) for nest in (wide, deep)][1].repeats_of
