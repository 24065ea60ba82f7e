"""Trains one model in several processes with Ray Train, with the interface of run_training."""

import contextlib
import dataclasses
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Generator
from typing import Any, Final

from hpo.errors import ProcessDiedError
from hpo.execution.cluster import GroupResources
from hpo.execution.saver import Progress
from hpo.execution.training import Leave, Training, leave, run_training
from sgformer.errors import OutOfMemoryError

SECONDS_BETWEEN_CHECKS: Final = 1.0
SECONDS_TO_STOP: Final = 60.0
SECONDS_TO_WAIT: Final = 300.0  # torch's processes wait for one another for 1,800
# Orders beside a Training: to train an epoch, to leave the training, to end.
GO_ON, STOP, END = 1, 0, -1
# News beside Progress and micro-batch sizes: the processes run; they have left a training.
STARTED: Final = "started"
LEFT: Final = "left"


def run_group_training(
    training: Training, resources: GroupResources, on_start: Callable[[], None] = lambda: None
) -> Generator[Progress | None]:
    """Runs one training in a group of processes that ends with it; see WarmGroup.run."""
    with contextlib.closing(WarmGroup()) as group:
        yield from group.run(training, resources, on_start)


class WarmGroup:
    """A group of processes on the connected Ray, kept from one training to the next.

    Its processes start with the first training, which takes most of a minute where torch is read
    over a network, and anew after one that broke.
    """

    def __init__(self) -> None:
        self._group: _Group | None = None

    def run(
        self,
        training: Training,
        resources: GroupResources,
        on_start: Callable[[], None] = lambda: None,
    ) -> Generator[Progress | None]:
        """Runs `run_training` in the group.

        A group that runs out of memory is restarted with half the micro-batch. A training that is
        ended within an epoch is saved there.

        Args:
            training: What is trained.
            resources: The processes, and the CPUs and GPUs of each; the same for all trainings.
            on_start: Is called once Ray has placed and started the processes.

        Raises:
            ProcessDiedError: A process of the group died, or the group could not be started.
            Exception: Any exception that a process of the group raised.
        """
        while True:
            group = self._started(resources, on_start)
            has_left = False
            try:
                group.order(training)
                group.order(GO_ON)
                while not isinstance(said := group.news(), int):
                    if isinstance(said, str):
                        on_start()
                        continue
                    yield said
                    if said is None:
                        continue
                    training = training.after(said.epochs[-1])
                    if said.end_reason is not None:
                        has_left = True
                        return
                    group.order(GO_ON)
            except (GeneratorExit, Leave):
                has_left = group.leave_training()
                raise
            finally:
                if not has_left:
                    self.close()
            training = dataclasses.replace(training, micro_batch_size=(said + 1) // 2)

    def close(self) -> None:
        """Ends the processes, if there are any."""
        group, self._group = self._group, None
        if group is not None:
            group.stop()

    def _started(self, resources: GroupResources, on_start: Callable[[], None]) -> "_Group":
        if self._group is not None and not self._group.is_alive:
            self.close()
        if self._group is None:
            self._group = _Group(resources)
        else:
            on_start()
        return self._group


class _Group:
    """A running TorchTrainer with two queues: orders to rank 0, and news from any process."""

    def __init__(self, resources: GroupResources) -> None:
        from ray.util.queue import Queue

        self._orders: Any = Queue(actor_options={"num_cpus": 0})
        self._news: Any = Queue(actor_options={"num_cpus": 0})
        self._error: BaseException | None = None
        self._has_started = False
        self._thread = threading.Thread(target=self._fit, args=(resources,), daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def order(self, order: Training | int) -> None:
        """Orders a training, an epoch of it, or its end."""
        from ray.exceptions import RayActorError

        with contextlib.suppress(RayActorError):  # reading the news then fails, too
            self._orders.put(order)

    def news(self) -> Progress | int | str | None:
        """The epoch's progress, or the micro-batch size that exceeded memory; None: not yet.

        STARTED: the processes have started. LEFT: they have left the training.
        """
        from ray.exceptions import RayActorError
        from ray.util.queue import Empty

        is_alive = self.is_alive  # checked before the last news is read
        try:
            said = self._news.get(timeout=SECONDS_BETWEEN_CHECKS)
        except RayActorError as error:
            raise ProcessDiedError(f"the group's queue is gone: {error}") from None
        except Empty:
            if is_alive:
                return None
            reason = str(self._error or "it ended before its training did").strip()
            raise ProcessDiedError(
                f"a process of the group is gone: {reason.splitlines()[-1]}"
            ) from None
        if isinstance(said, Exception):
            raise said
        self._has_started |= said == STARTED
        news: Progress | int | str = said
        return news

    def leave_training(self) -> bool:
        """Ends the training where it stands; returns whether the group can train another."""
        if not self._has_started:
            return False
        self.order(STOP)
        end = time.monotonic() + SECONDS_TO_STOP
        with contextlib.suppress(Exception):  # what broke as the training ended was not asked for
            while time.monotonic() < end:
                if self.news() == LEFT:
                    return True
        return False

    def stop(self) -> None:
        self.order(END)
        if self._has_started:  # else Ray may still look for room
            self._thread.join(SECONDS_TO_STOP)
        for queue in (self._orders, self._news):
            queue.shutdown(force=True)

    def _fit(self, resources: GroupResources) -> None:
        from ray import train
        from ray.train.torch import TorchConfig, TorchTrainer

        with tempfile.TemporaryDirectory(prefix="sgformer-hpo-") as scratch:
            trainer = TorchTrainer(
                _train_in_group,
                train_loop_config={
                    "num_threads": resources.cpus,
                    "orders": self._orders,
                    "news": self._news,
                },
                torch_config=TorchConfig(backend="nccl" if resources.gpus else "gloo"),
                scaling_config=train.ScalingConfig(
                    num_workers=resources.num_processes,
                    use_gpu=resources.gpus > 0,
                    resources_per_worker={"CPU": resources.cpus, "GPU": resources.gpus},
                    placement_strategy=resources.placement.upper(),
                ),
                run_config=train.RunConfig(
                    storage_path=scratch, failure_config=train.FailureConfig(max_failures=0)
                ),
            )
            try:
                trainer.fit()
            except (Exception, SystemExit) as error:  # noqa: BLE001  `news` reports it
                self._error = error


def _train_in_group(config: dict[str, Any]) -> None:
    """Runs in each process of a group: one training after another, until the order to end."""
    import torch

    from sgformer.optimization.distributed import broadcast_object, rank

    torch.set_num_threads(config["num_threads"])
    _tell(STARTED, config)
    order = None
    while order != END:
        order = broadcast_object(_next_order(config["orders"]) if rank() == 0 else None)
        if isinstance(order, Training):
            order = _train(order, config)
        if order == STOP:
            _tell(LEFT, config)


def _next_order(orders: Any) -> Training | int | None:
    """The next order; None after a while, before the other processes would give up waiting."""
    from ray.util.queue import Empty

    try:
        order: Training | int = orders.get(timeout=SECONDS_TO_WAIT)
    except Empty:
        return None
    return order


def _train(training: Training, config: dict[str, Any]) -> int:
    """Trains an epoch for each order to go on; returns the order that ended it, or GO_ON."""
    from sgformer.optimization.distributed import broadcast, rank
    from sgformer.training.device import release_memory

    epochs = run_training(training)
    with contextlib.closing(epochs):
        while (order := broadcast(config["orders"].get() if rank() == 0 else STOP)) == GO_ON:
            progress = _next(epochs, config)
            while progress is None:
                order = broadcast(_order_within_epoch(config["orders"]))
                if order != GO_ON:
                    leave(epochs)
                    break
                progress = _next(epochs, config)
            if progress is None:
                break
            _tell(progress, config)
            if progress.end_reason is not None:
                break
    del epochs
    release_memory()
    return order


def _tell(news: Progress | str, config: dict[str, Any]) -> None:
    from sgformer.optimization.distributed import rank

    if rank() == 0:
        config["news"].put(news)


def _next(epochs: Generator[Progress | None], config: dict[str, Any]) -> Progress | None:
    """The next word of the training; its error goes to the worker, too."""
    from sgformer.optimization.distributed import is_of_another_process

    try:
        return next(epochs)
    except OutOfMemoryError as error:
        config["news"].put(error.micro_batch_size or error)
        raise
    except Exception as error:
        if not is_of_another_process(error):
            error.add_note(traceback.format_exc())
            config["news"].put(error)
        raise


def _order_within_epoch(orders: Any) -> int:
    """The order that has come while an epoch is trained: to stop, or none."""
    from ray.util.queue import Empty

    from sgformer.optimization.distributed import rank

    if rank() > 0:
        return GO_ON
    try:
        order: int = orders.get_nowait()
    except Empty:
        return GO_ON
    return order
