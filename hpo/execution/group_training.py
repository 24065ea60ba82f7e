"""Trains one model in several processes with Ray Train, with the interface of run_training."""

import contextlib
import dataclasses
import tempfile
import threading
import traceback
from collections.abc import Callable, Generator
from typing import Any, Final

from hpo.errors import ProcessDiedError
from hpo.execution.cluster import GroupResources
from hpo.execution.training import Progress, Training, leave, run_training
from sgformer.errors import OutOfMemoryError

SECONDS_BETWEEN_CHECKS: Final = 1.0
SECONDS_TO_STOP: Final = 60.0
GO_ON, STOP = 1, 0
STARTED: Final = "started"


def run_group_training(
    training: Training, resources: GroupResources, on_start: Callable[[], None] = lambda: None
) -> Generator[Progress | None]:
    """Runs `run_training` in a group of processes on the connected Ray cluster.

    A group that runs out of memory is restarted with half the micro-batch. One that is ended
    within an epoch saves the training there.

    Args:
        training: What is trained.
        resources: The processes, and the CPUs and GPUs of each.
        on_start: Is called once Ray has placed and started the processes.

    Raises:
        ProcessDiedError: A process of the group died, or the group could not be started.
        Exception: Any exception that a process of the group raised.
    """
    while True:
        group = _Group(training, resources)
        try:
            group.go_on()
            while not isinstance(said := group.news(), int):
                if isinstance(said, str):
                    on_start()
                    continue
                yield said
                if said is None:
                    continue
                training = training.after(said.epochs[-1])
                if said.end_reason is not None:
                    return
                group.go_on()
        finally:
            group.stop()
        training = dataclasses.replace(training, micro_batch_size=(said + 1) // 2)


class _Group:
    """A running TorchTrainer with two queues: orders to rank 0, and news from any process."""

    def __init__(self, training: Training, resources: GroupResources) -> None:
        from ray.util.queue import Queue

        self._orders: Any = Queue(actor_options={"num_cpus": 0})
        self._news: Any = Queue(actor_options={"num_cpus": 0})
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._fit, args=(training, resources), daemon=True)
        self._thread.start()

    def go_on(self) -> None:
        """Orders the training of an epoch."""
        from ray.exceptions import RayActorError

        with contextlib.suppress(RayActorError):  # reading the news then fails, too
            self._orders.put(GO_ON)

    def news(self) -> Progress | int | str | None:
        """The epoch's progress, or the micro-batch size that exceeded memory; None: not yet.

        STARTED: the processes have started.
        """
        from ray.exceptions import RayActorError
        from ray.util.queue import Empty

        is_alive = self._thread.is_alive()  # checked before the last news is read
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
        news: Progress | int | str = said
        return news

    def stop(self) -> None:
        from ray.exceptions import RayActorError

        with contextlib.suppress(RayActorError):  # a queue may be gone with its node
            self._orders.put(STOP)
        self._thread.join(SECONDS_TO_STOP)
        for queue in (self._orders, self._news):
            queue.shutdown(force=True)

    def _fit(self, training: Training, resources: GroupResources) -> None:
        from ray import train
        from ray.train.torch import TorchConfig, TorchTrainer

        with tempfile.TemporaryDirectory(prefix="sgformer-hpo-") as scratch:
            trainer = TorchTrainer(
                _train_in_group,
                train_loop_config={
                    "training": training,
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
    """Runs in each process of a group: trains an epoch for each order until the order to stop."""
    import torch

    from sgformer.optimization.distributed import broadcast, rank

    torch.set_num_threads(config["num_threads"])
    if rank() == 0:
        config["news"].put(STARTED)
    epochs = run_training(config["training"])
    while broadcast(config["orders"].get() if rank() == 0 else STOP) == GO_ON:
        progress = _next(epochs, config)
        while progress is None:
            if broadcast(_order_within_epoch(config["orders"])) == STOP:
                leave(epochs)
                return
            progress = _next(epochs, config)
        if rank() == 0:
            config["news"].put(progress)
        if progress.end_reason is not None:
            return


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
