"""Trains one model in several processes with Ray Train, with the interface of run_training."""

import contextlib
import dataclasses
import tempfile
import threading
import traceback
from collections.abc import Generator
from typing import Any, Final

from hpo.errors import ProcessDiedError
from hpo.execution.cluster import GroupResources
from hpo.execution.training import Progress, Training, run_training
from sgformer.errors import OutOfMemoryError

SECONDS_BETWEEN_CHECKS: Final = 1.0
SECONDS_TO_STOP: Final = 60.0
GO_ON, STOP = 1, 0


def run_group_training(training: Training, resources: GroupResources) -> Generator[Progress]:
    """Runs `run_training` in a group of processes on the connected Ray cluster.

    A group that runs out of memory is restarted with half the micro-batch.

    Raises:
        ProcessDiedError: A process of the group died, or the group could not be started.
        Exception: Any exception that a process of the group raised.
    """
    while True:
        group = _Group(training, resources)
        try:
            while isinstance(said := group.next_epoch(), Progress):
                training = training.after(said.epochs[-1])
                yield said
                if said.end_reason is not None:
                    return
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

    def next_epoch(self) -> Progress | int:
        """Trains an epoch; returns its progress, or the micro-batch size that exceeded memory."""
        from ray.exceptions import RayActorError
        from ray.util.queue import Empty

        with contextlib.suppress(RayActorError):  # reading the news then fails, too
            self._orders.put(GO_ON)
        while True:
            is_alive = self._thread.is_alive()  # checked before the last news is read
            try:
                said = self._news.get(timeout=SECONDS_BETWEEN_CHECKS)
            except RayActorError as error:
                raise ProcessDiedError(f"the group's queue is gone: {error}") from None
            except Empty:
                if is_alive:
                    continue
                reason = str(self._error or "it ended before its training did").strip()
                raise ProcessDiedError(
                    f"a process of the group is gone: {reason.splitlines()[-1]}"
                ) from None
            if isinstance(said, Exception):
                raise said
            news: Progress | int = said
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
                ),
                run_config=train.RunConfig(
                    storage_path=scratch, failure_config=train.FailureConfig(max_failures=0)
                ),
            )
            try:
                trainer.fit()
            except (Exception, SystemExit) as error:  # noqa: BLE001  next_epoch reports it
                self._error = error


def _train_in_group(config: dict[str, Any]) -> None:
    """Runs in each process of a group: trains an epoch for each order until the order to stop."""
    import torch

    from sgformer.optimization.distributed import broadcast, is_of_another_process, rank

    torch.set_num_threads(config["num_threads"])
    epochs = run_training(config["training"])
    while broadcast(config["orders"].get() if rank() == 0 else STOP) == GO_ON:
        try:
            progress = next(epochs)
        except OutOfMemoryError as error:
            config["news"].put(error.micro_batch_size or error)
            raise
        except Exception as error:
            if not is_of_another_process(error):
                error.add_note(traceback.format_exc())
                config["news"].put(error)
            raise
        if rank() == 0:
            config["news"].put(progress)
        if progress.end_reason is not None:
            return
