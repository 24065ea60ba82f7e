"""The steps of a search, and the state that they share."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, Final

from hpo.config.schema import PAUSING
from hpo.config.search_space import Params, default_params
from hpo.config.sections import AUTO
from hpo.continuation import config_of_study, create_study, find_study, refuse_other_images
from hpo.delivery.exports import export_architectures
from hpo.delivery.front import deliver_winners
from hpo.delivery.results_copy import copy_results
from hpo.engine.architectures import (
    ArchitectureCosts,
    check_feasible,
    missing_architectures,
    several_machines,
)
from hpo.engine.observer import SearchObserver
from hpo.execution.cluster import (
    TrialResources,
    cluster_nodes,
    connected,
    resources_or_hope,
    trial_resources,
)
from hpo.execution.comparison import compare_finalists
from hpo.execution.gpu_share import measured_shares, settled_resources
from hpo.execution.interruption import interruptible
from hpo.execution.latency_node import latency_node, measured_on
from hpo.execution.node_check import check_nodes, what_nodes_share
from hpo.execution.searched_images import Decoding, SearchedImages, in_background
from hpo.execution.surroundings import usable_surroundings
from hpo.execution.tuning import interrupted_text, run_trials
from hpo.reporting.report import write_report
from hpo.run import Run
from hpo.run_folder import discard
from hpo.run_store import store_of
from hpo.run_teachers import keep_teachers
from hpo.run_weights import keep_weights
from hpo.schedulers.first_rung import FirstRung, first_rung_text
from hpo.selection.finalists import has_candidates, is_settled
from hpo.selection.selection import best_so_far
from hpo.study.lease import leased
from hpo.study.storage import storage_note
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialStatus, num_counted
from hpo.transfer.carry_over import Continuation, carry_over
from hpo.transfer.warm_start import first_rung_of_earlier, warm_start_params
from sgformer.data.image_data import check_part
from sgformer.disk import noticing_full_disk

SECONDS_BEFORE_RAY: Final = 0.5  # within this time a bad image folder is noticed


@contextlib.contextmanager
def under_way(now: Continuation, observer: SearchObserver) -> Iterator[contextlib.ExitStack]:
    """Locks the run, handles signals and a full disk; yields a stack for what the steps open."""
    with (
        interruptible(interrupted_text(now.config, now.run)),
        usable_surroundings(),
        now.run.locked(observer.note),
        noticing_full_disk(now.run.path),
        contextlib.ExitStack() as held,
    ):
        yield held


class SearchSteps:
    """The steps of a search, and the state that they share: study, images, resources, decoding.

    Args:
        now: The config, the run's folder, and the run whose trials are carried over, if any.
        observer: Is told of every event.
        storage: The storage URL that the user gave, password included; None: the config's.
        held: Gets the lease and the decoding entered, and closes them when the search ends.
    """

    decoding: Decoding
    images: SearchedImages
    resources: TrialResources
    latency_node: str | None

    def __init__(
        self,
        now: Continuation,
        observer: SearchObserver,
        storage: str | None,
        held: contextlib.ExitStack,
    ) -> None:
        self.now, self.config, self.folder = now, now.config, now.run
        self.observer, self.storage, self._held = observer, storage, held
        self._study: SearchStudy | None = None
        self._warm_start: Sequence[Params] = ()
        self._first_level: FirstRung | None = None
        self._gpu_shares: dict[str, Any] | None = None
        self._may_grow = False

    @property
    def study(self) -> SearchStudy:
        assert self._study is not None, "the study is found or made by an earlier step"
        return self._study

    def as_run(self) -> Run:
        """A snapshot of the run."""
        return Run(self.folder, self.config, self.study)

    # The work that is left

    @property
    def is_over(self) -> bool:
        """Whether all trials, trainings and files that the config asks for exist."""
        if self._study is None or not self.folder.is_complete or self.has_trainings_left:
            return False
        if self.as_run().winner is None:  # then `retrain --trial` delivered the model
            return False
        known, select = self.folder.load_config(), self.config.study.select
        # Trials of the front that the former limits had no room for may fit into the present ones.
        has_all = select != "front" or known.limits == self.config.limits
        shows_same = known.report == self.config.report
        return known.study.select == select and has_all and shows_same

    @property
    def has_trainings_left(self) -> bool:
        """Whether trials or finalists are left to train, or trials to carry over."""
        if self._study is None or self.now.predecessor is not None:
            return True
        trials = self.study.trials()
        is_compared = not has_candidates(trials) or is_settled(self.config, self.study, trials)
        return self._has_trials_left or not is_compared or self._has_to_combine

    @property
    def _has_to_combine(self) -> bool:
        """Whether best/ has the winner's model, but not as `retrain.deliver` asks for it."""
        run = self.as_run()
        if not run.is_delivered or run.winner is None or run.delivered != run.winner:
            return False  # `retrain --trial` has put another model there
        return run.files.asked_to_be != self.config.retrain.deliver

    @property
    def _has_trials_left(self) -> bool:
        trials = self.study.trials()
        if any(trial.state == TrialStatus.RUNNING for trial in trials):
            return True
        is_limited = self.study.metadata.limits_reached == self.config.limits
        return num_counted(trials) < self.config.study.num_trials and not is_limited

    # The steps, in order

    def find_study(self, *, resume: bool) -> None:
        """Opens the run's study if it exists, and tells the observer of its trials."""
        study = find_study(self.config, self.folder, self.storage, resume=resume)
        if study is None:
            return
        self._study, self.config = study, config_of_study(study, self.config)
        trials = study.trials()
        best = best_so_far(trials, self.config)
        if trials:
            self.observer.earlier_trials(
                Counter(trial.outcome for trial in trials),
                None if best is None else (best[0].number, best[1]),
                sum(trial.num_epochs for trial in trials),
            )

    def lease_study(self) -> None:
        """Takes the lease on the study, if it exists, and holds it until the search ends."""
        if self._study is None:
            return
        note = storage_note(self.folder.storage_url(self.config, self.storage))
        if note is not None:
            self.observer.note(note)
        self._held.enter_context(leased(self._study, self.observer.note))
        self.observer.study_opened(self._study)

    def ask_earlier_studies(self) -> None:
        """For a new study, reads first configurations and first rung from `study.warm_start`."""
        if self._study is None:
            self._warm_start = warm_start_params(self.config, self.storage)
            self._first_level = first_rung_of_earlier(self.config, self.storage)

    def keep_weights(self) -> None:
        """Copies weights to start from, and teachers, to the run's folder, unless it has them."""
        keep_weights(self.config, self.folder, self.observer.note, self.now.predecessor)
        keep_teachers(self.config, self.folder, self.observer.note)
        if (store := store_of(self.config, self.folder)) is not None:
            store.send_weights(self.folder)

    def begin_decoding(self) -> None:
        """Starts threads that decode the images and import slow modules."""
        data = self.config.train.resolved().data
        self.decoding = self._held.enter_context(Decoding(data, self.observer, self.folder.path))
        if self.config.scheduler.name in PAUSING:
            # Its import of SciPy takes most of a second.
            in_background(lambda: import_module("hpo.schedulers.freeze_thaw"))

    @contextlib.contextmanager
    def connected_ray(self, address: str | None) -> Iterator[None]:
        """Connects to Ray, waits for the images, and checks that the nodes can train a trial."""
        if self.decoding.has_ended_within(SECONDS_BEFORE_RAY):  # else the decoding is shown
            self.observer.phase("starting Ray" if address is None else "connecting to Ray")
        with connected(address):
            self.latency_node = latency_node(self._latency_node_asked)
            self.take_images()
            self._may_grow = address is not None
            self.resources = self._find_resources()
            share_a_folder = self.config.study.checkpoint_to is None
            with self.decoding.hearing_nodes(share_a_folder=share_a_folder):
                yield

    @property
    def _latency_node_asked(self) -> str | None:
        """The name of the node that measures latency, if anything is left to measure."""
        known = {} if self._study is None else self._study.metadata.architectures
        has_left = missing_architectures(self.config, known)
        return self.config.resources.latency_node if has_left else None

    def _find_resources(self) -> TrialResources:
        """What a trial takes on the connected Ray; a cluster's nodes are asked what they see."""
        asked = self.config.resources
        if self._may_grow:
            resources = resources_or_hope(asked, self.observer.note)
            data = self.config.train.resolved().data
            store = store_of(self.config, self.folder)
            shared = what_nodes_share(self.folder, data, self.images.id, store)
            check_nodes(shared, resources, self.observer.note)
        else:
            resources = trial_resources(asked, cluster_nodes())
        if asked.gpus_per_trial == AUTO and resources.gpus and self.has_trainings_left:
            return self._measured_resources(resources)
        return resources

    def _measured_resources(self, whole: TrialResources) -> TrialResources:
        """What trials take by their measured shares of a GPU, which the study keeps."""
        known = None if self._study is None else self._study.metadata.gpu_shares
        self._gpu_shares = measured_shares(self.config, whole, known, self.observer)
        if self._study is not None and self._gpu_shares != known:
            self._study.metadata.gpu_shares = self._gpu_shares
        return settled_resources(self.config, self._gpu_shares, self.observer)

    def take_images(self) -> None:
        """Waits for the images; raises StudyError if the study has other images.

        Raises ConfigError if `eval_images` is too few for them.
        """
        self.images = self.decoding.images()
        check_part(self.config.train.eval_images, len(self.images.facts["classes"]))
        if self._study is not None:
            refuse_other_images(self._study, self.images.facts)

    def make_study(self) -> None:
        """Creates and leases the study, with what earlier studies suggest, unless it exists."""
        if self._study is not None:
            return
        first = self._first_level
        facts = self.images.facts
        self._study = create_study(self.config, self.folder, self.storage, facts, first)
        self._study.metadata.warm_start = self._warm_start
        if self._gpu_shares is not None:
            self._study.metadata.gpu_shares = self._gpu_shares
        if first is not None:
            self.observer.note(f"first decision at {first_rung_text(self.config, (first,))}")
        self.lease_study()

    def carry_trials_over(self) -> None:
        """Copies the predecessor's trials that lie in the new space to the study."""
        if self.now.predecessor is None:
            return
        was = self.now.predecessor.load_config()
        url = self.now.predecessor.storage_url(was, self.storage)
        old = SearchStudy.open(url, was.study, was.space)
        refuse_other_images(old, self.images.facts)
        with leased(old, self.observer.note):
            num_carried, num_trials = carry_over(old, self.study, was, self.now)
        self.observer.note(
            f"the space has changed: study {self.config.study.name!r} goes on, with {num_carried} "
            f"of the {num_trials} trials of {was.study.name!r}; the others lie outside it"
        )

    def measure_architectures(self) -> None:
        """Measures the costs of architectures, before trials load this machine.

        Raises:
            ConfigError: The constraints rule out every architecture.
        """
        if not self.config.study.architecture_costs:
            return
        metadata, num_classes = self.study.metadata, len(self.images.facts["classes"])
        config = self.config.with_num_features(self.images.num_features)
        missing = missing_architectures(self.config, metadata.architectures)
        exported = export_architectures(
            config, missing, num_classes, self.folder, self.resources, self.observer
        )
        if missing:
            self.observer.phase("measuring architectures")
        for done, (name, params) in enumerate(missing.items(), 1):
            costs = measured_on(self.latency_node, config, params, num_classes, exported.get(name))
            metadata.architectures = {**metadata.architectures, name: costs}
            self.observer.step(done, len(missing))
        discard(self.folder.architectures)
        if (machines := several_machines(self.config, metadata.architectures)) is not None:
            self.observer.note(machines)
        check_feasible(self.config, metadata.architectures)
        default = default_params(self.config.train, self.config.space)
        reason = ArchitectureCosts(self.config, metadata.architectures).infeasible(default)
        if reason is not None:
            self.observer.note(
                f"the default configuration is not trained: it is infeasible ({reason})"
            )

    def enqueue_first_trials(self) -> None:
        """Enqueues the first trials, the default configuration ahead, and writes search.yaml."""
        self.study.enqueue_first_trials(default_params(self.config.train, self.config.space))
        self.folder.save_config(self.config)

    def train_trials(self) -> None:
        """Trains trials until `num_trials` have ended or a limit is reached."""
        if self._has_trials_left:
            run_trials(
                self.config,
                self.folder,
                self.study,
                self.images.id,
                self.resources,
                self.observer,
                may_grow=self._may_grow,
            )

    def compare_finalists(self) -> None:
        """Trains the finalists on fresh seeds, if the config asks for a comparison."""
        if self.config.compares_finalists and has_candidates(self.study.trials()):
            compare_finalists(
                self.config, self.folder, self.study, self.images, self.resources, self.observer
            )

    def deliver(self, resources: TrialResources | None) -> None:
        """Retrains the winner on the cluster (None: in this process), and exports it."""
        deliver_winners(self.as_run(), self.observer, self.images.id, resources)

    def write_results(self) -> None:
        """Writes search.yaml, which may have raised limits, the leaderboard and the report."""
        self.folder.save_config(self.config)
        self.observer.phase("writing the report")
        write_report(self.folder, self.config, self.study)

    def copy_results(self) -> None:
        """Copies the results to `study.deliver_to`, if that is set."""
        if self.config.study.deliver_to is not None:
            self.folder.save_config(self.config)  # a finished run may have got the URL just now
            self.observer.phase(f"copying the results to {self.config.study.deliver_to}")
            copy_results(self.folder, self.config)
