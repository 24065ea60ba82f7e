"""Tests of searches that are repeated, carried over, or run on a cluster, with a real Ray."""

import json
from pathlib import Path

import pytest
import yaml
from command_line import TRAIN_ONLY, load_epochs, load_trials, run, study_attributes
from data_sets import write_shards
from optuna.trial import TrialState
from ray_heads import RayHead
from searches import search_values, write_search


@pytest.fixture
def search_file(tmp_path: Path, image_folder: Path, cache_dir: Path) -> Path:
    """A search file of eight trials, of which the second diverges."""
    return write_search(tmp_path / "tiny.yaml", image_folder, cache_dir)


def test_one_slot_and_one_seed_give_one_study(search_file: Path, tmp_path: Path) -> None:
    studies = []
    for name in ("first", "second"):
        settings = (
            "study.num_trials=5",
            "resources.max_concurrent_trials=1",
        )
        options = [word for setting in settings for word in ("--set", setting)]
        run(search_file, "--output-dir", tmp_path / name, *options, program=TRAIN_ONLY)
        trials = load_trials(tmp_path / name / "tiny")
        studies.append([(t.params, repr(t.intermediate_values), t.state, t.value) for t in trials])
    assert len(studies[0]) == 5
    assert studies[0] == studies[1]


def test_a_search_too_cheap_to_compare_says_so_and_compares_when_asked(
    search_file: Path, tmp_path: Path
) -> None:
    rival = "{optimizer.learning_rate: 1.0e-4, model.drop_rate: 0.1}"
    settings = ("--set", "study.num_trials=2", "--set", f"study.enqueue=[{rival}]")
    command = ("search", search_file, "--output-dir", tmp_path, *settings)
    retrain = ("--set", "retrain={seeds: 1, top_k: 2}")  # for a fifth of the trials, by default
    first = run(*command, *retrain)
    room = "retrain.max_share=0.2 leaves room for one finalist, so nothing is compared. All"
    assert room in " ".join(first.stderr.split())
    costs = "costs more than retrain.max_share of the search; resume with a larger one, or null"
    assert costs in " ".join(first.stdout.split())
    assert (tmp_path / "tiny" / "best" / "model.onnx").exists()
    more = ("--set", "retrain={seeds: 1, top_k: 2, max_share: null}", "--resume")
    assert "on one fresh seed" in run(*command, *more).stdout


def test_a_changed_space_goes_on_in_a_new_study(search_file: Path, tmp_path: Path) -> None:
    command = (search_file, "--output-dir", tmp_path)
    run(*command, "--set", "study.num_trials=4", program=TRAIN_ONLY)
    added = "space.model.attn_drop_rate={type: float, low: 0, high: 0.3}"
    changed = ("--set", "study.num_trials=6", "--set", added, "--resume")
    resumed = run(*command, *changed, program=TRAIN_ONLY)
    assert "study 'tiny-2' goes on, with 4 of the 4 trials of 'tiny'" in resumed.stderr
    old, new = load_trials(tmp_path / "tiny"), load_trials(tmp_path / "tiny-2")
    assert len(new) == 6
    for before, after in zip(old, new, strict=False):
        assert (after.state, after.value) == (before.state, before.value)
        assert repr(after.intermediate_values) == repr(before.intermediate_values)
        assert after.params == {**before.params, "model.attn_drop_rate": 0.0}
    run("report", tmp_path / "tiny-2")
    assert (
        "4 of the 4 trials of study tiny were carried over"
        in (tmp_path / "tiny-2" / "report.html").read_text()
    )
    # As after a kill before the move was recorded: the move is finished, not repeated.
    (tmp_path / "tiny-2" / "search.yaml").unlink()
    again = run(*command, *changed, program=TRAIN_ONLY)
    assert "with 4 of the 4 trials" in again.stderr
    assert " starts: " not in again.stderr
    assert (tmp_path / "tiny-2" / "search.yaml").exists()
    assert not (tmp_path / "tiny-3").exists()
    assert len(load_trials(tmp_path / "tiny-2")) == 6


def test_two_processes_train_a_trial_and_the_winner_on_tar_shards(
    image_folder: Path, cache_dir: Path, tmp_path: Path
) -> None:
    shards = write_shards(image_folder, tmp_path / "shards")
    resources = {"workers_per_trial": 2, "max_concurrent_trials": None}
    file = write_search(tmp_path / "tiny.yaml", shards, cache_dir, resources=resources)
    settings = ("study.num_trials=1", "study.enqueue=[]", "train.max_epochs=2")
    run("search", file, "--output-dir", tmp_path, *(w for s in settings for w in ("--set", s)))
    (trial,) = load_trials(tmp_path / "tiny")
    assert trial.state == TrialState.COMPLETE
    assert list(trial.intermediate_values) == [1, 2]
    rows = load_epochs(tmp_path / "tiny", 0)
    assert [float(row["val_top1"]) for row in rows] == list(trial.intermediate_values.values())
    best = tmp_path / "tiny" / "best"
    assert (best / "export.json").exists()
    told = run("evaluate", best / "model.onnx", "--data-dir", shards, "--split", "val", "--json")
    expected = json.loads((best / "metrics.json").read_text())["val"]["top1"]
    assert json.loads(told.stdout)["top1"] == expected


def test_models_of_several_families_are_searched_and_any_of_them_is_delivered(
    image_folder: Path, cache_dir: Path, tmp_path: Path
) -> None:
    values = search_values(image_folder, cache_dir)
    del values["train"]["data"]["crop_pct"]  # each model's own is taken
    ours, resnet, vit = names = ["sg_former_pico", "test_resnet", "test_vit"]
    with_attention = {"when": {"model.name": [ours, vit]}}
    values["space"] |= {
        "model.name": {"type": "categorical", "choices": names},
        "model.attn_drop_rate": {"type": "float", "low": 0.0, "high": 0.3} | with_attention,
        "data.image_size": {
            "type": "categorical", "choices": [32, 50], "when": {"model.name": [resnet]},
        },
    }  # fmt: skip
    values["study"] |= {
        "enqueue": [{"model.name": resnet, "data.image_size": 50}, {"model.name": vit}],
        "constraints": ["num_parameters <= 1e6"],
    }
    values["train"]["max_epochs"] = 2
    file, run_dir = tmp_path / "tiny.yaml", tmp_path / "tiny"
    file.write_text(yaml.safe_dump(values))
    run(file, "--output-dir", tmp_path, program=TRAIN_ONLY)
    trials = load_trials(run_dir)
    assert [trial.params["model.name"] for trial in trials[:3]] == names
    assert {t.params["model.name"]: "model.attn_drop_rate" in t.params for t in trials[:3]} == {
        ours: True, resnet: False, vit: True,
    }  # fmt: skip
    assert all(trial.state != TrialState.FAIL for trial in trials)
    measured = study_attributes(run_dir)["architectures"]
    assert measured.keys() == {f"{ours} at 32 pixels", f"{vit} at 32 pixels"} | {
        f"{resnet} at {side} pixels" for side in (32, 50)
    }
    run("retrain", run_dir, "--trial", 1)
    model = run_dir / "best" / "model.onnx"
    image = next((image_folder / "test" / "4").iterdir())
    assert "0." in run("predict", model, image).stdout
    assert "20 images" in run("evaluate", model, "--data-dir", image_folder).stdout
    assert "strategy" in run("simulate", run_dir).stdout


@pytest.mark.cluster
def test_a_cluster_trains_trials_and_the_winner(
    search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 40)
    head = RayHead(num_cpus=2)
    try:
        command = ("search", search_file, "--output-dir", tmp_path, "--set", "study.num_trials=2")
        on_head = ("--ray-address", head.wait().address)
        run(*command[1:], *on_head, program=TRAIN_ONLY)
        assert {t.state.name for t in load_trials(tmp_path / "tiny")} == {"COMPLETE", "PRUNED"}
        assert not (tmp_path / "tiny" / "best").exists()
        delivered = run(*command, *on_head, "--resume")  # nothing else is left
        assert "connecting to Ray" in delivered.stderr
        assert (tmp_path / "tiny" / "best" / "export.json").exists()
        refused = run(
            *command, "--study-name", "other", *on_head, expect=2, RAY_AUTH_TOKEN="b" * 40
        )
        assert f"the Ray cluster at {head.address} refuses the token" in refused.stderr
    finally:
        head.stop()
