"""deploy/ray-cluster.yaml, by Ray's own checks; that it starts machines cannot be tried here."""

from pathlib import Path

import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

FILE = Path(__file__).parents[2] / "deploy" / "ray-cluster.yaml"


def test_ray_accepts_the_cluster() -> None:
    config = prepare_config(yaml.safe_load(FILE.read_text()))
    validate_config(config)
    assert config["max_workers"] == len(config["provider"]["worker_ips"])


def test_every_node_starts_with_token_authentication_and_the_head_runs_no_trials() -> None:
    config = yaml.safe_load(FILE.read_text())
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        (start,) = [command for command in commands if " start " in command]
        assert start.startswith("RAY_AUTH_MODE=token ")
    assert "--num-cpus=0 --num-gpus=0" in config["head_start_ray_commands"][1]
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
