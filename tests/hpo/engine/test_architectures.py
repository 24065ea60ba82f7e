from pathlib import Path
from typing import Any

import pytest

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.engine.architectures import (
    ArchitectureCosts,
    check_feasible,
    measure_architecture,
    missing_architectures,
    several_machines,
)
from hpo.errors import StudyError

PICO, NANO = "sg_former_pico at 32 pixels", "sg_former_nano at 32 pixels"
MEASURED = {
    PICO: {"num_parameters": 119_800, "latency_ms": 0.5},
    NANO: {"num_parameters": 400_000, "latency_ms": 2.0},
}
MODELS = "space.model.name={type: categorical, choices: [sg_former_pico, sg_former_nano]}"


@pytest.fixture
def search_config(search_file: Path) -> Any:
    def load(*overrides: str) -> SearchConfig:
        return load_search_config(search_file, [MODELS, *overrides])[0]

    return load


TWO = "study.objectives=[[val_top1, maximize], [latency_ms, minimize]]"
BOUND = "study.constraints=[num_parameters <= 2e5, latency_ms <= 1]"


def test_costs_are_looked_up_by_what_shapes_the_model(search_config: Any) -> None:
    costs = ArchitectureCosts(search_config(TWO, BOUND), MEASURED)
    nano = {"model.name": "sg_former_nano", "model.drop_rate": 0.25}
    assert costs.of(nano) == {"latency_ms": 2.0, "num_parameters": 400_000}
    assert costs.objectives(nano) == (2.0,)
    assert costs.objectives({}) == (0.5,)  # the model of the search file's `train` section
    assert costs.violations(nano) == {"num_parameters <= 200,000": 1.0, "latency_ms <= 1": 1.0}
    assert (
        costs.infeasible(nano) == "num_parameters 400,000, not <= 200,000; latency_ms 2, not <= 1"
    )
    assert costs.infeasible({}) is None
    assert costs.is_allowed is not None
    assert (costs.is_allowed(nano), costs.is_allowed({})) == (False, True)


def test_a_search_that_asks_for_no_costs_has_none(search_config: Any) -> None:
    config = search_config("study.constraints=[val_top1 >= 0.5]")
    costs = ArchitectureCosts(config, {})
    assert (costs.of({}), costs.objectives({}), costs.violations({})) == ({}, (), {})
    assert (costs.infeasible({}), costs.is_allowed) == (None, None)
    assert not missing_architectures(config, {})


def test_costs_that_were_not_measured_are_named(search_config: Any) -> None:
    costs = ArchitectureCosts(search_config(BOUND), {PICO: {"num_parameters": 119_800}})
    with pytest.raises(StudyError, match="what sg_former_pico at 32 pixels costs is not in the"):
        costs.of({})


def test_what_is_missing_of_the_space_is_measured_and_nothing_twice(search_config: Any) -> None:
    sizes = "space.data.image_size={type: int, low: 32, high: 96, step: 32}"
    config = search_config(TWO, sizes)
    missing = missing_architectures(config, MEASURED)
    assert set(missing) == {
        f"sg_former_{name} at {side} pixels" for name in ("pico", "nano") for side in (64, 96)
    }
    assert missing["sg_former_nano at 96 pixels"] == {
        "model.name": "sg_former_nano", "data.image_size": 96,
    }  # fmt: skip
    assert set(missing_architectures(search_config(TWO), {PICO: {"num_parameters": 1}})) == {
        PICO, NANO,
    }  # fmt: skip


def test_parameters_are_counted_without_a_latency(search_config: Any) -> None:
    config = search_config("study.constraints=[num_parameters <= 2e5]")
    costs = measure_architecture(config, {"model.name": "sg_former_pico"}, 10)
    assert costs == {"num_parameters": 119_800}


def test_bytes_need_a_file_and_no_clock(search_config: Any) -> None:
    config = search_config("study.constraints=[bytes <= 5e6]")
    costs = measure_architecture(config, {"model.name": "sg_former_pico"}, 10)
    assert costs.keys() == {"num_parameters", "bytes", "format"}
    assert 4 * costs["num_parameters"] < costs["bytes"] < 6 * costs["num_parameters"]
    assert costs["format"] == "onnx"
    assert ArchitectureCosts(config, {PICO: costs}).infeasible({}) is None
    assert PICO not in missing_architectures(config, {PICO: costs})


@pytest.mark.parametrize(("int8", "expected"), [("smallest", ("int8", 3)), ("false", ("onnx", 7))])
def test_bytes_are_of_the_format_that_is_delivered(
    search_config: Any, tmp_path: Path, int8: str, expected: tuple[str, int]
) -> None:
    config = search_config("study.constraints=[bytes <= 5e6]", f"export.int8={int8}")
    (tmp_path / "pico.onnx").write_bytes(b"float32")
    (tmp_path / "pico.int8.onnx").write_bytes(b"int")
    costs = measure_architecture(config, {}, 10, tmp_path / "pico.onnx")
    assert (costs["format"], costs["bytes"]) == expected


@pytest.mark.parametrize(
    ("hosts", "note"),
    [(("a", "b"), "latency_ms was measured on 2 machines, a, b, since"), (("a", "a"), None)],
)
def test_latencies_of_several_machines_are_told(
    search_config: Any, hosts: tuple[str, str], note: str | None
) -> None:
    measured = {
        name: costs | {"hostname": host}
        for (name, costs), host in zip(MEASURED.items(), hosts, strict=True)
    }
    told = several_machines(search_config(TWO), measured)
    assert told is None if note is None else str(told).startswith(note)
    assert several_machines(search_config(), measured) is None


def test_a_latency_says_which_machine_it_is_of(search_config: Any) -> None:
    costs = measure_architecture(search_config(TWO), {"model.name": "sg_former_pico"}, 10)
    assert 0 < costs["latency_ms"] < 1000
    assert {"hostname", "num_cpus"} < costs.keys()


def test_models_of_timm_are_measured_at_the_sizes_that_they_are_searched_at(
    search_config: Any,
) -> None:
    config = search_config(
        TWO,
        BOUND,
        "space.model.name.choices=[sg_former_pico, test_resnet]",
        "space.data.image_size={type: int, low: 32, high: 40, step: 4, "
        "when: {model.name: [test_resnet]}}",
    )
    missing = missing_architectures(config, MEASURED)
    assert list(missing) == [f"test_resnet at {side} pixels" for side in (32, 36, 40)]
    assert missing["test_resnet at 36 pixels"] == {
        "model.name": "test_resnet", "data.image_size": 36,
    }  # fmt: skip
    costs = measure_architecture(
        search_config(TWO, "study.constraints=[num_parameters <= 1e6]"),
        {"model.name": "test_resnet"},
        10,
    )
    assert 3e5 < costs["num_parameters"] < 4e5
    assert costs["latency_ms"] > 0


def test_what_is_ruled_out_by_its_parameters_is_not_timed(search_config: Any) -> None:
    config = search_config(TWO, "study.constraints=[num_parameters <= 1e5]")
    measured = {PICO: measure_architecture(config, {"model.name": "sg_former_pico"}, 10)}
    assert measured == {PICO: {"num_parameters": 119_800}}
    assert PICO not in missing_architectures(config, measured)
    assert ArchitectureCosts(config, measured).infeasible({}) == (
        "num_parameters 119,800, not <= 100,000"
    )


def test_a_space_without_a_feasible_architecture_is_refused(search_config: Any) -> None:
    check_feasible(search_config(BOUND), MEASURED)
    config = search_config("study.constraints=[latency_ms <= 0.1]")
    with pytest.raises(
        StudyError, match=r"no architecture of the space.*\n.*latency_ms 0\.5, not"
    ):
        check_feasible(config, MEASURED)
