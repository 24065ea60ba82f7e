from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import search_spaces
from hpo.config.loading import dump_search_config, load_search_config
from hpo.config.resumed import differences
from hpo.config.schema import SearchConfig
from sgformer.errors import ConfigError

SHIPPED = sorted(Path(search_spaces.__file__).parent.glob("*.yaml"))
Edit = Callable[[Callable[[dict], None]], Path]


def load(path: Path, *overrides: str) -> SearchConfig:
    return load_search_config(path, overrides)[0]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_dumped_config_reads_back_to_the_same(path: Path, tmp_path: Path) -> None:
    config, _ = load_search_config(path, data_dir=tmp_path)
    copy = tmp_path / "other-name.yaml"
    copy.write_text(dump_search_config(config))
    assert load_search_config(copy)[0] == config


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


def test_a_resume_may_change_length_and_resources_only(search_file: Path) -> None:
    old = load(search_file)
    allowed = load(
        search_file, "study.num_trials=9", "resources.max_concurrent_trials=1",
        "retrain.max_epochs=3", "train.data.num_workers=2", "report.images=false",
    )  # fmt: skip
    assert differences(old, allowed) == ()
    changed = load(search_file, "train.max_epochs=9", "space.model.drop_rate.high=0.3")
    assert differences(old, changed) == (
        "space.model.drop_rate.high: 0.5 -> 0.3",
        "train.max_epochs: 4 -> 9",
    )


@pytest.mark.parametrize(
    ("bound", "changed"),
    [
        ("num_parameters <= 2e5", ()),
        ("bytes <= 5e6", ("export.int8: False -> True",)),
        ("latency_ms <= 5", ("export.int8: False -> True",)),
    ],
)
def test_a_resume_keeps_the_format_whose_costs_were_measured(
    search_file: Path, bound: str, changed: tuple[str, ...]
) -> None:
    bounded = f"study.constraints=[{bound}]"
    old = load(search_file, bounded)
    new = load(search_file, bounded, "export={int8: true, uint8: true}")
    assert differences(old, new) == changed


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
