"""Runs a search without its delivery: `train_only.py SEARCH.yaml`, with options of `search`.

Tests of trials and finalists use it to save an export's 15 seconds of a core.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from hpo.config.loading import load_search_config
from hpo.continuation import check_continuation, with_storage
from hpo.errors import RunError
from hpo.reporting.display import PlainDisplay
from hpo.run_folder import RunFolder
from hpo.search_steps import SearchSteps, under_way
from hpo.transfer.carry_over import Continuation, continuation
from sgformer.errors import InputError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("search_file", type=Path)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--ray-address")
    arguments = parser.parse_args()
    config, _ = load_search_config(arguments.search_file, arguments.overrides)
    config = with_storage(config, config.study.storage)
    folder = RunFolder(arguments.output_dir / config.study.name)
    now = continuation(config, folder) if arguments.resume else Continuation(config, folder)
    now.run.make()
    display = PlainDisplay(now.config, lambda line: print(line, file=sys.stderr, flush=True))
    with display, under_way(now, display) as held:
        config = check_continuation(now.config, now.run, None, resume=arguments.resume)
        search = SearchSteps(replace(now, config=config), display, None, held)
        search.find_study(resume=arguments.resume)
        search.lease_study()
        search.ask_earlier_studies()
        search.begin_decoding()
        with search.connected_ray(arguments.ray_address):
            search.make_study()
            search.carry_trials_over()
            search.measure_architectures()
            search.enqueue_first_trials()
            search.train_trials()
            search.compare_finalists()


def run() -> None:
    """Runs it with the exit code and message of the program."""
    try:
        main()
    except (InputError, RunError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    run()
