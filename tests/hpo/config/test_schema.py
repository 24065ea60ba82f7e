from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

import search_spaces
from hpo.config.loading import load_search_config
from hpo.config.schema import (
    SAMPLERS_OF_SEVERAL,
    SCHEDULERS_OF_SEVERAL,
    Sampler,
    Scheduler,
    SearchConfig,
)
from hpo.config.search_space import apply_params, default_params
from sgformer.errors import ConfigError

SHIPPED = sorted(Path(search_spaces.__file__).parent.glob("*.yaml"))
Edit = Callable[[Callable[[dict], None]], Path]


def load(path: Path, *overrides: str) -> SearchConfig:
    return load_search_config(path, overrides)[0]


def every_setting(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from every_setting(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
@pytest.mark.parametrize("max_epochs", [None, 2, 3, 7, 300])
def test_shipped_search_files_are_valid_at_any_length(path: Path, max_epochs: int | None) -> None:
    overrides = [f"train.max_epochs={max_epochs}"] if max_epochs else []
    config, _ = load_search_config(path, overrides)
    assert config.study.name == path.stem
    assert config.train.optimizer.warmup_epochs < config.train.max_epochs
    assert (config.scheduler.min_epochs or 1) < config.train.max_epochs
    default = default_params(config.train, config.space)
    assert apply_params(config.train, default, "default") == config.train


def test_core_is_the_missions_space() -> None:
    config, _ = load_search_config(next(p for p in SHIPPED if p.stem == "core"))
    assert set(config.space) == {
        "model.name", "optimizer.learning_rate", "model.drop_rate", "model.attn_drop_rate",
    }  # fmt: skip
    names = tuple(f"sg_former_b{i}" for i in range(6))
    assert config.space["model.name"].examples() == names
    assert config.train.data.image_size == 224


def test_the_best_epoch_is_picked_by_the_objective(search_file: Path) -> None:
    config, _ = load_search_config(search_file, ["study.objectives=[[val_loss, minimize]]"])
    assert config.train.metric == "val_loss"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.optimzer.x=1", r"train\.optimzer: unknown key; nearest known: optimizer"),
        ("study.num_trials=-3", r"study\.num_trials: .*greater than or equal to 1, got -3"),
        ("study.name=a/b", r"study\.name: names a folder.*got 'a/b'"),
        ("study.sampler=tep", r"study\.sampler: input should be 'curves'.*got 'tep'"),
        ("study.objectives=[[val_top1, minimize]]", r"val_top1 is to maximize, got 'minimize'"),
        ("study.objectives=[[accuracy, maximize]]", r"study\.objectives\.0\.0: .*got 'accuracy'"),
        ("space.optimizer.learning_rate.low=1", r"learning_rate: low must be below high, got low"),
        ("study.objectives=[]", r"study\.objectives: takes one of val_top1.*got none"),
        ("study.objectives=[[latency_ms, minimize]]", r"takes one of val_top1.*got latency_ms"),
        (
            "study.objectives=[[val_top1, maximize], [val_loss, minimize]]",
            r"takes one of val_top1.*each once, got val_top1, val_loss",
        ),
        (
            "study.objectives=[[val_top1, maximize], [latency_ms, maximize]]",
            r"latency_ms is to minimize, got 'maximize'",
        ),
        (
            "study.constraints=[int8_top1_drop <= 0.01]",
            r"int8_top1_drop is of the model in 8-bit .* export\.int8 is off; set it to true",
        ),
        (
            "study.objectives=[[val_top1, maximize], [int8_top1_drop, minimize]]",
            r"scheduler\.name: asha compares trials at rungs, and int8_top1_drop .* choose none",
        ),
        (
            "resources.latency_node=10.0.0.5",
            r"latency_node: measures latency_ms, which neither .* leave it out, got '10\.0\.0\.5'",
        ),
        ("study.constraints=[latency <= 5]", r"study\.constraints\.0: no such objective: 'laten"),
        ("study.select=knee", r"study\.select: knee is of several study\.objectives"),
        ("study.select=top", r"study\.select: input should be 'best'.*got 'top'"),
        (
            "budget.total_epochs=7",
            r"must leave room for the default configuration's training of 4 epochs, and for 4 "
            r"after .* at least 8, got 7",
        ),
        ("report.images=some", r"report\.images: .*boolean.*, got 'some'"),
        ("report.image=false", r"report\.image: unknown key; nearest known: images"),
        ("budget.gpu_hours=0", r"budget\.gpu_hours: .*greater than 0, got 0"),
        ("budget.stop_when={}", r"budget\.stop_when\.gain_per_gpu_hour: "),
        (
            "budget.stop_when={gain_per_gpu_hour: 0.1}",
            r"budget\.stop_when: asks the model of curves .* and cannot with 'asha'",
        ),
        (
            "scheduler={name: median, cost_aware: true}",
            r"scheduler\.cost_aware: weighs what .* and cannot with 'median'; leave it out",
        ),
        ("resources.gpus_per_trial=2", r"gpus_per_trial: a process trains on one GPU or a share"),
        (
            "resources.gpus_per_trial=x",
            r"gpus_per_trial: takes GPUs, from 0 to 1, or auto, got 'x'",
        ),
        ("resources.gpus_per_trial=-1", r"gpus_per_trial: takes GPUs, .* or auto, got -1"),
        (
            "resources={workers_per_trial: 2, gpus_per_trial: auto}",
            r"train together take a whole GPU each, got gpus_per_trial=auto",
        ),
        ("study.enqueue=[{model.drop_rate: 0.9}]", r"study\.enqueue\.model\.drop_rate: 0\.9 lies"),
        ("study.storage=postgresql://u:pw@h/d", r"study\.storage: holds a password; pass the"),
        ("study.num_trials.x=1", r"study\.num_trials\.x: study\.num_trials is 4, not a section"),
        ("study.storage=postgresql://u:a/b@h/d", r"study\.storage: holds a password; .*%40 %2F"),
        ("study.storage=postgresql://u:a@b@h/d", r"study\.storage: holds a password"),
        ("study.warm_start=['postgresql://u:a/b@h/d#x']", r"study\.warm_start: holds a password"),
        ("study.storage=mysql://h/d?user=u&password=p", r"study\.storage: holds a password"),
        ("study.name=2024-13-45", r"--set study\.name: the value is not YAML: '2024-13-45'"),
        ("space.model.drop_rate.hgih=1", r"drop_rate\.hgih: unknown key; nearest known: high"),
        ("space.model.droprat.low=0", r"no such searched parameter; nearest known: model\.drop_r"),
        ("study.sampler=grid", r"grid: space\.optimizer\.learning_rate is continuous .* a step"),
        ("study.num_trials", r"--set takes path=value, got 'study\.num_trials'"),
        ("study.num_trials=[", r"--set study\.num_trials: the value is not YAML: '\['"),
        (
            "study.enqueue=[{model: {drop_rate: 0}}]",
            r"enqueue\.0\.model: takes one value",
        ),
        ("study.constraints=latency_ms <= 5", r"study\.constraints: input should be a valid list"),
        (
            "space.model={drop_rate: {low: 0}}",
            r"space\.model\.type: is required; a name is",
        ),
        (
            "space.model.drop_rate.choices=[0, 0.1]",
            r"choices: does not go with the type",
        ),
    ],
)
def test_wrong_settings_are_refused(search_file: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_search_config(search_file, [override])


SEVERAL = "study.objectives=[[num_parameters, minimize], [val_macro_f1, maximize]]"


def test_several_objectives_have_defaults_of_their_own(edit: Edit) -> None:
    config = load(edit(lambda values: values.pop("scheduler")), SEVERAL)
    assert (config.scheduler.name, config.study.sampler, config.study.select) == (
        "asha", "tpe", "knee",
    )  # fmt: skip
    assert (config.study.metric, config.study.objective.direction) == ("val_macro_f1", "maximize")
    assert config.train.metric == "val_macro_f1"
    assert config.study.costs == ("num_parameters",)
    assert load(edit(lambda _: None)).study.select == "best"


def test_what_is_known_at_a_trials_end_alone_is_minimised_without_a_scheduler(edit: Edit) -> None:
    file = edit(lambda values: values.pop("scheduler"))
    objectives = "study.objectives=[[val_top1, maximize], [int8_top1_drop, minimize]]"
    config = load(file, objectives, "study.constraints=[bytes <= 5e6]", "export.int8=true")
    assert (config.scheduler.name, config.study.sampler) == ("none", "tpe")
    assert config.study.costs == ("int8_top1_drop", "bytes")
    assert config.study.architecture_costs == ("bytes",)
    assert config.study.trial_costs == ("int8_top1_drop",)
    bounded = load(file, "study.constraints=[int8_top1_drop <= 0.01]", "export.int8=smallest")
    assert bounded.scheduler.name == "freeze_thaw"


@pytest.mark.parametrize("scheduler", sorted({*get_args(Scheduler)} - {*SCHEDULERS_OF_SEVERAL}))
def test_a_scheduler_of_one_objective_refuses_several(search_file: Path, scheduler: str) -> None:
    with pytest.raises(ConfigError, match=rf"name: {scheduler} .* asha, hyperband, none"):
        load(search_file, SEVERAL, f"scheduler={{name: {scheduler}}}")


@pytest.mark.parametrize("sampler", sorted({*get_args(Sampler)} - {*SAMPLERS_OF_SEVERAL}))
def test_a_sampler_of_one_objective_refuses_several(search_file: Path, sampler: str) -> None:
    with pytest.raises(ConfigError, match=rf"sampler: {sampler} .* has 2; .* tpe, gp, nsga2"):
        load(search_file, SEVERAL, f"study.sampler={sampler}")


def test_several_objectives_are_not_compared_on_fresh_seeds(search_file: Path) -> None:
    assert load(search_file, "retrain.seeds=3").compares_finalists
    assert not load(search_file, "retrain.seeds=0").compares_finalists
    assert not load(search_file, "retrain.seeds=3", SEVERAL).compares_finalists


def test_the_manual_has_every_setting() -> None:
    manual = Path(__file__).parents[3] / "docs" / "search-file.md"
    sections = dict(
        part.split("\n", 1) for part in manual.read_text(encoding="utf-8").split("\n## ")[1:]
    )
    for path in every_setting(SearchConfig):
        section, _, name = path.partition(".")
        if name:
            assert f"`{name}`" in sections[section], path


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("retrain.seeds=0", "retrain.deliver=soup"),
            r"retrain\.seeds of at least 1; .* got 1 objectives and 0 seeds",
        ),
        (
            ("retrain.seeds=2", "retrain.deliver=ensemble", SEVERAL),
            r"one of study\.objectives .* got 2 obj",
        ),
        (
            ("retrain.seeds=2", "retrain.deliver=ensemble", "study.constraints=[latency_ms <= 5]"),
            r"an ensemble costs .* study\.constraints has latency_ms; choose soup or winner",
        ),
        (
            (
                "retrain.seeds=2",
                "retrain.deliver=soup",
                "study.constraints=[int8_top1_drop <= 0.1]",
            ),
            r"study\.constraints has int8_top1_drop, which only a training shows",
        ),
        (
            ("retrain.seeds=2", "retrain.deliver=soup", "train.data.features=a.csv"),
            r"models that take images alone, and train\.data\.features is set",
        ),
        (("retrain.members=1",), r"retrain\.members: .* greater than or equal to 2, got 1"),
        (("retrain.deliver=mean",), r"retrain\.deliver: .*'soup' or 'ensemble'.* got 'mean'"),
    ],
)
def test_a_soup_or_ensemble_that_cannot_be_made_is_refused(
    search_file: Path, settings: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(search_file, *settings)


def test_a_soup_keeps_to_bounds_on_the_architecture(search_file: Path) -> None:
    settings = ("retrain.seeds=2", "retrain.deliver=soup", "study.constraints=[latency_ms <= 5]")
    assert load(search_file, *settings).retrain.deliver == "soup"


@pytest.mark.fuse
@pytest.mark.parametrize("name", ["int8", "fp16", "tensorrt"])
def test_a_format_that_takes_no_features_is_refused(search_file: Path, name: str) -> None:
    message = rf"export\.{name}: .*takes features .*as onnx, uint8, openvino, and not as {name}; "
    with pytest.raises(ConfigError, match=message):
        load(search_file, "train.data.features=a.csv", f"export.{name}=true")
    load(search_file, "train.data.features=a.csv", "export.uint8=true", "export.openvino=true")


@pytest.mark.parametrize(
    ("overrides", "set_aside"),
    [
        (["retrain={seeds: 3, top_k: 1, max_share: null}"], 24),  # 6 trainings of 4 epochs
        (["retrain={seeds: 3, top_k: 1, max_share: 0.25}"], 16),  # two seeds, in 20 epochs
        (["retrain={seeds: 3, top_k: 1, max_share: 0.07}"], 700 / 107),  # less than a seed
        (["retrain={seeds: 3, top_k: 1, max_share: 0.01}"], 4),
        (["retrain.seeds=0"], 4),
    ],
)
def test_a_budget_of_epochs_sets_aside_what_the_share_allows(
    search_file: Path, overrides: list[str], set_aside: float
) -> None:
    config, _ = load_search_config(search_file, [*overrides, "budget.total_epochs=100"])
    assert config.epochs_set_aside == pytest.approx(set_aside)
    assert load_search_config(search_file, overrides)[0].epochs_set_aside == 0
