"""Tests of RunStatus as the command status prints it."""

import json
import re
from pathlib import Path

from commands import Call, write_run

from hpo.delivery.forgetting import Forgetting, told_of
from hpo.model_files import ModelFiles
from sgformer.config import TrainConfig


def test_status_says_where_trials_are_first_compared_and_why(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    thaw = ("scheduler={name: freeze_thaw}", "study.num_trials=40")
    run_dir = write_run(tmp_path / "long", search_file, *thaw)
    text = call("status", run_dir)[1]
    assert re.search(r"first decision +epoch 1 of 4: ranks there and at", text)
    level = json.loads(call("status", run_dir, "--json")[1])["first_level"]
    assert (level["epoch"], level["agreement"].keys()) == (1, {"1"})
    short = write_run(tmp_path / "short", search_file, *thaw[:1])
    text = call("status", short)[1]
    assert re.search(r"epoch 1 of 4 \(default: \d of 4 trials needed have come to epoch 2", text)
    assert json.loads(call("status", short, "--json")[1])["first_level"] is None
    as_set = write_run(tmp_path / "set", search_file)
    assert "epoch 1 of 4 (scheduler.min_epochs)" in call("status", as_set)[1]
    without = write_run(tmp_path / "none", search_file, "scheduler.name=none")
    assert "first decision" not in call("status", without)[1]


def test_status_tells_what_an_extension_forgets(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    run_dir = write_run(tmp_path / "run", search_file)
    assert json.loads(call("status", run_dir, "--json")[1])["extension"] is None
    found = Forgetting(8, ("8", "9"), 24, 6, 0.95, 0.9, 0.05, -0.01, 0.11, 0.8)
    told = told_of(found, TrainConfig(), seconds=12.0)
    files = ModelFiles(run_dir / "best")
    files.extension.parent.mkdir(exist_ok=True)
    files.extension.write_text(json.dumps(told))
    shown = json.loads(call("status", run_dir, "--json")[1])["extension"]
    assert (shown["forgetting"], shown["new_classes"]) == (0.05, ["8", "9"])
    assert re.search(r"forgotten +0\.0500 \(-0\.0100 to 0\.1100", call("status", run_dir)[1])
