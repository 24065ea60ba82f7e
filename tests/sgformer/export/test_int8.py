from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from sgformer.config import TrainConfig
from sgformer.data.image_data import ImageData, load_image_data
from sgformer.data.model_input import eval_batches
from sgformer.export.fp16 import export_fp16
from sgformer.export.int8 import Int8Report, export_int8
from sgformer.export.int8_graph import Quantizer, layer_errors, quantized_layers
from sgformer.export.judge import Judge, paired_drop
from sgformer.export.latency import latencies
from sgformer.export.onnx_classifier import OnnxClassifier
from sgformer.export.onnx_export import export_onnx
from sgformer.training.trainer import Trainer


@pytest.fixture(scope="module")
def data(train_config: TrainConfig) -> ImageData:
    return load_image_data(train_config.data)


@pytest.fixture(scope="module")
def float_model(
    train_config: TrainConfig, data: ImageData, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    trainer = Trainer(train_config, data)
    list(trainer.epochs())
    path = tmp_path_factory.mktemp("float") / "model.onnx"
    export_onnx(trainer.model, path, train_config, data.classes)
    return path


@pytest.fixture(scope="module")
def batches(train_config: TrainConfig, data: ImageData) -> list[np.ndarray]:
    found = eval_batches(data, data.samples("train"), train_config.data, batch_size=16)
    return [images.numpy() for images, _ in found]


@pytest.fixture(scope="module")
def quantizer(
    float_model: Path, batches: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> Quantizer:
    return Quantizer(float_model, lambda: iter(batches), tmp_path_factory.mktemp("ranges"))


def test_only_layers_with_many_products_are_quantized(quantizer: Quantizer) -> None:
    graph = quantizer.model().graph
    integers = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    convolutions = {node.output[0] for node in graph.node if node.op_type == "Conv"}
    readers = {n.op_type for n in graph.node if integers.intersection(n.input)}
    assert {"Softmax", "LayerNormalization", "TopK", "GatherElements"} <= {
        node.op_type for node in graph.node
    }
    # What follows a convolution reads its quantized output.
    assert readers >= {"Conv", "MatMul", "Gemm"}
    for node in graph.node:
        if node.op_type in {"Softmax", "LayerNormalization", "TopK", "GatherElements"}:
            sources = integers.intersection(node.input)
            assert all(_source(graph, name) in convolutions for name in sources)


def _source(graph: onnx.GraphProto, dequantized: str) -> str:
    makers = {node.output[0]: node for node in graph.node}
    return makers[makers[dequantized].input[0]].input[0]


def test_zero_points_are_zero_and_biases_float_as_tensorrt_asks(quantizer: Quantizer) -> None:
    graph = quantizer.model().graph
    values = {v.name: onnx.numpy_helper.to_array(v) for v in graph.initializer}
    for node in graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            assert not values[node.input[2]].any()
            assert values[node.input[2]].dtype == np.int8
    biases = [node.input[2] for node in graph.node if node.op_type in {"Conv", "Gemm"}]
    assert {values[name].dtype for name in biases} == {np.dtype(np.float32)}


def test_weights_have_a_scale_for_each_channel(quantizer: Quantizer) -> None:
    graph = quantizer.model().graph
    sizes = {v.name: v.dims for v in graph.initializer}
    gemm = next(node for node in quantized_layers(graph) if node.op_type == "Gemm")
    scale = next(n for n in graph.node if n.output[0] == gemm.input[1]).input[1]
    assert list(sizes[scale]) == [10]


def test_it_is_a_model_that_the_classifier_reads(
    quantizer: Quantizer, float_model: Path, batches: list[np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "int8.onnx"
    onnx.save(quantizer.model(), path)
    onnx.checker.check_model(path, full_check=True)
    whole, small = OnnxClassifier(float_model), OnnxClassifier(path)
    assert small.classes == whole.classes
    expected, found = whole.logits_of(batches), small.logits_of(batches)
    noise = np.square(found - expected).mean() / np.square(expected).mean()
    assert noise < 0.02
    assert path.stat().st_size < float_model.stat().st_size


def test_corrected_biases_leave_no_mean_error(
    quantizer: Quantizer, float_model: Path, batches: list[np.ndarray]
) -> None:
    model = onnx.load(float_model)
    left = layer_errors(model, quantizer.model(), lambda: iter(batches))
    own_bias = {n.name for n in model.graph.node if n.op_type in {"Conv", "Gemm"}}
    before = [np.abs(quantizer.errors[n].shift).max() for n in own_bias]
    after = [np.abs(left[n].shift).max() for n in own_bias]
    assert max(after) < 0.01 * max(before)


def test_named_layers_stay_in_float(quantizer: Quantizer) -> None:
    kept = quantizer.noisiest[:3]
    layers = {node.name for node in quantized_layers(quantizer.model(kept).graph)}
    assert layers == set(quantizer.errors) - set(kept)
    noises = [quantizer.errors[name].noise for name in quantizer.noisiest]
    assert noises == sorted(noises, reverse=True)
    assert noises[0] > 0


@pytest.fixture(scope="module")
def judge(float_model: Path, train_config: TrainConfig, data: ImageData) -> Judge:
    return Judge(float_model, train_config, data, num_images=512)


@pytest.fixture
def export(
    float_model: Path, tmp_path: Path, train_config: TrainConfig, data: ImageData, judge: Judge
) -> Callable[[float], Int8Report]:
    """A function that exports, and allows so great a loss."""
    path = tmp_path / "model.int8.onnx"
    return lambda most: export_int8(
        float_model, path, train_config, data, judge, most, even_if_slower=True
    )


def test_a_model_that_loses_little_is_delivered(
    export: Callable[[float], Int8Report], tmp_path: Path, data: ImageData
) -> None:
    report = export(1.0)
    (tried,) = report.trade_offs
    file = tmp_path / "model.int8.onnx"
    assert report.delivered
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert file.stat().st_size == tried.bytes < report.float32_bytes
    assert report.calibration_images == len(data.samples("train"))
    assert report.num_images == len(data.samples("val"))
    assert "of the bytes" in report.reason


def test_layers_go_back_to_float_until_little_is_lost(
    export: Callable[[float], Int8Report], tmp_path: Path
) -> None:
    report = export(-1.0)
    assert not report.delivered
    assert not list(tmp_path.iterdir())
    numbers = [tried.float_layers for tried in report.trade_offs]
    assert numbers[:4] == [0, 1, 2, 4]
    assert len(report.float_layers) == numbers[-1] <= report.num_layers // 2
    sizes = [tried.bytes for tried in report.trade_offs]
    assert sizes[-1] > sizes[0]
    assert "export.max_top1_drop allows -1.0" in report.reason


def test_half_precision_halves_the_file_and_keeps_float32_at_both_ends(
    float_model: Path, tmp_path: Path, judge: Judge
) -> None:
    path = tmp_path / "model.fp16.onnx"
    report = export_fp16(float_model, path, judge, max_top1_drop=0.1)
    assert report.delivered
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert report.trade_off.bytes == path.stat().st_size < report.float32_bytes
    graph = onnx.load(path).graph
    ends = (*graph.input, *graph.output)
    assert {v.type.tensor_type.elem_type for v in ends} == {onnx.TensorProto.FLOAT}
    floats = [v for v in graph.initializer if v.data_type == onnx.TensorProto.FLOAT]
    halves = [v for v in graph.initializer if v.data_type == onnx.TensorProto.FLOAT16]
    assert sum(np.prod(v.dims) for v in halves) > 10 * sum(np.prod(v.dims) for v in floats)
    assert not export_fp16(float_model, path, judge, max_top1_drop=-1).delivered


def answers(*counts: int) -> tuple[np.ndarray, np.ndarray]:
    """Answers of two models: both right, only the first, only the second, none."""
    before, after = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
    return before.repeat(counts), after.repeat(counts)


@pytest.mark.parametrize(
    ("counts", "mean", "low", "high"),
    [
        ((100, 0, 0, 0), 0.0, -0.019, 0.019),
        ((90, 5, 5, 0), 0.0, -0.064, 0.064),
        ((80, 10, 0, 10), 0.1, 0.037, 0.159),
    ],
)
def test_a_drop_has_a_paired_interval(
    counts: tuple[int, ...], mean: float, low: float, high: float
) -> None:
    drop = paired_drop(*answers(*counts))
    assert drop.mean == mean
    assert (drop.low, drop.high) == pytest.approx((low, high), abs=0.001)


def test_models_whose_latency_is_compared_take_turns() -> None:
    calls: list[str] = []
    found = latencies({name: lambda name=name: calls.append(name) for name in "ab"})
    assert "".join(calls[4:]) == "ab" * 60
    assert set(found) == {"a", "b"}


def test_a_bias_that_layers_share_meets_no_other_value(
    quantizer: Quantizer, float_model: Path, batches: list[np.ndarray], tmp_path: Path
) -> None:
    model = onnx.load(float_model)
    biased = [n for n in model.graph.node if n.op_type == "Conv" and len(n.input) > 2]
    taken = biased[-1].output[0]  # what a number added to "bias" would give
    by_size = {v.name: tuple(v.dims) for v in model.graph.initializer}
    same = [n for n in biased if by_size[n.input[2]] == by_size[biased[0].input[2]]]
    bias = onnx.numpy_helper.from_array(np.zeros(by_size[biased[0].input[2]], np.float32), "bias")
    model.graph.initializer.append(bias)
    for node in same:
        node.input[2] = "bias"
    for node in model.graph.node:
        node.input[:] = ["bias0" if name == taken else name for name in node.input]
        node.output[:] = ["bias0" if name == taken else name for name in node.output]
    path = tmp_path / "shared.onnx"
    onnx.save(model, path)
    assert len(same) > 1
    found = Quantizer(path, lambda: iter(batches[:1]), tmp_path)
    assert set(found.errors) == set(quantizer.errors)
    onnx.checker.check_model(found.model())
