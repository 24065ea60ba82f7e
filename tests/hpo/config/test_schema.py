from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel

import search_spaces
from hpo.config.schema import (
    SAMPLERS_OF_SEVERAL,
    SCHEDULERS_OF_SEVERAL,
    Sampler,
    Scheduler,
    SearchConfig,
    differences,
    dump_search_config,
    load_search_config,
)
from hpo.config.search_space import apply_params, default_params
from sgformer.errors import ConfigError

SHIPPED = sorted(Path(search_spaces.__file__).parent.glob("*.yaml"))
Edit = Callable[[Callable[[dict], None]], Path]


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


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_dumped_config_reads_back_to_the_same(path: Path, tmp_path: Path) -> None:
    config, _ = load_search_config(path, data_dir=tmp_path)
    copy = tmp_path / "other-name.yaml"
    copy.write_text(dump_search_config(config))
    assert load_search_config(copy)[0] == config


def test_core_is_the_missions_space() -> None:
    config, _ = load_search_config(next(p for p in SHIPPED if p.stem == "core"))
    assert set(config.space) == {
        "model.name", "optimizer.learning_rate", "model.drop_rate", "model.attn_drop_rate",
    }  # fmt: skip
    names = tuple(f"sg_former_b{i}" for i in range(6))
    assert config.space["model.name"].examples() == names
    assert config.train.data.image_size == 224
    assert config.resources.gpus_per_trial == 1


def test_clipping_is_noted(search_file: Path) -> None:
    config, notes = load_search_config(
        search_file,
        [
            "train.max_epochs=2",
            "scheduler.min_epochs=9",
            "train.optimizer.warmup_epochs=5",
        ],
    )
    assert (config.scheduler.min_epochs, config.train.optimizer.warmup_epochs) == (1, 1)
    assert any("scheduler.min_epochs: 9 clipped to 1" in note for note in notes)
    assert any("warmup_epochs: 5 clipped to 1" in note for note in notes)


def test_where_trials_are_first_compared_is_left_open_only_with_curves_to_choose_by(
    search_file: Path,
) -> None:
    def min_epochs(*overrides: str) -> int | None:
        return load_search_config(search_file, ["scheduler={name: asha}", *overrides])[
            0
        ].scheduler.min_epochs

    assert min_epochs("train.max_epochs=9") == 4
    assert min_epochs("train.max_epochs=9", "study.warm_start=[a]") is None
    assert min_epochs("train.max_epochs=4", "study.warm_start=[a]") == 1


def test_a_grid_bounds_the_number_of_trials(search_file: Path) -> None:
    rate = "space.optimizer.learning_rate={type: categorical, choices: [1e-3, 2e-3]}"
    overrides = [rate, "study.sampler=grid"]
    assert load_search_config(search_file, overrides)[0].study.num_trials == 4
    config, notes = load_search_config(search_file, [*overrides, "study.num_trials=100"])
    assert config.study.num_trials == 22
    assert "study.num_trials: 100 clipped to 22, the whole grid" in notes


def test_the_folder_is_kept_absolute_and_given_values_win(
    search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config, _ = load_search_config(search_file, data_dir=Path("images"), name="other")
    assert config.train.data.data_dir == tmp_path / "images"
    assert config.study.name == "other"


@pytest.mark.parametrize(
    ("override", "path", "expected"),
    [
        ("train.optimizer.learning_rate=1e-3", "train.optimizer.learning_rate", 1e-3),
        ("space.optimizer.learning_rate.low=1e-6", "space.optimizer.learning_rate.low", 1e-6),
        ("study.objectives=[[val_loss, minimize]]", "study.metric", "val_loss"),
        ("study.num_trials=7", "study.num_trials", 7),
        ("retrain.max_epochs=9", "retrain.max_epochs", 9),
    ],
)
def test_set_reaches_every_setting(
    search_file: Path, override: str, path: str, expected: object
) -> None:
    config, _ = load_search_config(search_file, [override])
    section, _, rest = path.partition(".")
    value = getattr(config, section)
    if section == "space":
        name, _, field = rest.rpartition(".")
        value, rest = value[name], field
    for part in rest.split("."):
        value = getattr(value, part)
    assert value == expected


def test_set_adds_a_searched_parameter(search_file: Path) -> None:
    config, _ = load_search_config(
        search_file, ["space.model.attn_drop_rate={type: float, low: 0, high: 0.3}"]
    )
    assert config.space["model.attn_drop_rate"].describe() == "0..0.3"


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
        ("study.constraints=[latency <= 5]", r"study\.constraints\.0: no such objective: 'laten"),
        ("study.select=knee", r"study\.select: knee is of several study\.objectives"),
        ("study.select=top", r"study\.select: input should be 'best'.*got 'top'"),
        (
            "budget.total_epochs=7",
            r"must leave room for the default configuration's training of 4 and 1 of 4 after .* "
            r"at least 8, got 7",
        ),
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


def test_constraints_survive_the_dump(search_file: Path, tmp_path: Path) -> None:
    config = load(search_file, "study.constraints=[latency_ms <= 5, num_parameters <= 1e7]")
    copy = tmp_path / "tiny.yaml"
    copy.write_text(dump_search_config(config))
    assert "- latency_ms <= 5.0" in copy.read_text()
    assert load(copy) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study: [", r"tiny\.yaml is not YAML: "),
        ("just text", r"is not a search file: .* got str"),
        ("", r"is not a search file: .* got NoneType"),
        ("study: {num_trials: 3}", r"space: is required"),
        ("study: {num_trials: 3}\nstudy: {name: x}", r"'study' is there twice .*line 2, column 1"),
        ("study: {seed: 1, name: x, seed: 1}", r"'seed' is there twice"),
    ],
)
def test_what_is_no_search_file_is_refused(search_file: Path, text: str, message: str) -> None:
    search_file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_search_config(search_file)


def test_parameters_may_be_merged_from_others(search_file: Path) -> None:
    more = (
        "  model.attn_drop_rate: &drop {type: float, low: 0, high: 0.3}\n"
        "  model.proj_drop_rate: {<<: *drop, high: 0.2}\n"
    )
    search_file.write_text(search_file.read_text().replace("space:\n", f"space:\n{more}"))
    assert load(search_file).space["model.proj_drop_rate"].describe() == "0..0.2"


def test_guesses_beyond_the_number_of_trials_are_noted(search_file: Path) -> None:
    guesses = "study.enqueue=[{model.drop_rate: 0}, {model.drop_rate: 0.1}]"
    _, notes = load_search_config(search_file, [guesses, "study.num_trials=2"])
    assert notes == (
        "study.enqueue: 1 of 2 guesses will be tried: study.num_trials is 2, with the default",
    )
    assert load_search_config(search_file, [guesses])[1] == ()


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read search file .*none\.yaml: No such file"):
        load_search_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="search file is a folder"):
        load_search_config(tmp_path)


def load(path: Path, *overrides: str) -> SearchConfig:
    return load_search_config(path, overrides)[0]


def test_a_resume_may_change_length_and_resources_only(search_file: Path) -> None:
    old = load(search_file)
    allowed = load(
        search_file, "study.num_trials=9", "resources.max_concurrent_trials=1",
        "retrain.max_epochs=3", "train.data.num_workers=2",
    )  # fmt: skip
    assert differences(old, allowed) == ()
    changed = load(search_file, "train.max_epochs=9", "space.model.drop_rate.high=0.3")
    assert differences(old, changed) == (
        "space.model.drop_rate.high: 0.5 -> 0.3",
        "train.max_epochs: 4 -> 9",
    )


def test_conditional_parameters_survive_the_dump(edit: Edit, tmp_path: Path) -> None:
    def condition(values: dict) -> None:
        values["space"] |= {
            "augmentation.policy": {"type": "categorical", "choices": ["mild", "guide"]},
            "augmentation.random_erasing_prob": {
                "type": "float", "low": 0, "high": 0.5, "when": {"augmentation.policy": ["guide"]},
            },
        }  # fmt: skip

    config = load(edit(condition))
    values = yaml.safe_load(dump_search_config(config))
    when = {name: parameter.get("when") for name, parameter in values["space"].items()}
    assert when["augmentation.random_erasing_prob"] == {"augmentation.policy": ["guide"]}
    assert when["model.drop_rate"] is None


def every_setting(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from every_setting(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_the_manual_has_every_setting() -> None:
    manual = Path(__file__).parents[2] / "docs" / "search-file.md"
    sections = dict(
        part.split("\n", 1) for part in manual.read_text(encoding="utf-8").split("\n## ")[1:]
    )
    for path in every_setting(SearchConfig):
        section, _, name = path.partition(".")
        if name:
            assert f"`{name}`" in sections[section], path
