"""Distribution strategies by name, and what the workers of one run do together."""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from keras_robust.errors import InputError, is_finite, require, require_choice

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

JOIN_TIMEOUT = 300.0
LOST_TIMEOUT = 30.0

Result = TypeVar("Result")


class WorkerLost(RuntimeError):
    """Another worker of the run has ended or cannot be reached; start all of them again."""


def strategy(
    name: str, join_timeout: float = JOIN_TIMEOUT, lost_timeout: float = LOST_TIMEOUT
) -> tf.distribute.Strategy:
    """The strategy to build and train under; make it before anything else uses TensorFlow's devices.

    Args:
        name: "single" device; "mirrored" over all GPUs of this host; "multiworker" over the hosts that the
            environment variable TF_CONFIG lists; "tpu", the one that TPU_NAME says.
        join_timeout: seconds that a worker waits at its start for the others.
        lost_timeout: seconds without a sign of life after which a worker counts as lost.

    Raises:
        InputError: an unknown name, a TF_CONFIG that cannot be used, a port in use, or workers or a TPU that
            do not answer.

    >>> strategy("single").num_replicas_in_sync
    1
    """
    for what, seconds in {"join_timeout": join_timeout, "lost_timeout": lost_timeout}.items():
        require(is_finite(seconds) and seconds >= 1, f"{what} must be >= 1 second. Received: {seconds!r}.")
    require_choice("strategy", name, STRATEGIES)
    return STRATEGIES[name](join_timeout, lost_timeout)


def _single(join_timeout: float, lost_timeout: float) -> Any:
    import tensorflow as tf

    return tf.distribute.get_strategy()


def _mirrored(join_timeout: float, lost_timeout: float) -> Any:
    import tensorflow as tf

    return tf.distribute.MirroredStrategy()


def _tpu(join_timeout: float, lost_timeout: float) -> Any:
    import tensorflow as tf

    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect()
    except (ValueError, RuntimeError, OSError, ImportError, tf.errors.OpError) as error:
        raise InputError(f"No TPU; name one in the environment variable TPU_NAME. {error}") from error
    return tf.distribute.TPUStrategy(resolver)


def _multi_worker(join_timeout: float, lost_timeout: float) -> Any:
    import tensorflow as tf

    cluster = Cluster.read()
    try:
        with _ended_by(signal.SIGTERM):
            _configure(cluster, join_timeout, lost_timeout)
            return tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, tf.errors.OpError) as error:
        raise InputError(cluster.explained(str(error), join_timeout)) from error


STRATEGIES: dict[str, Callable[[float, float], Any]] = {
    "single": _single,
    "mirrored": _mirrored,
    "multiworker": _multi_worker,
    "tpu": _tpu,
}


def _configure(cluster: Cluster, join_timeout: float, lost_timeout: float) -> None:
    """Set timeouts: those of MultiWorkerMirroredStrategy are fixed, and its chief waits without end."""
    from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2 as messages
    from tensorflow.python.eager import context

    jobs = dict.fromkeys(job for job, _ in cluster.tasks)
    counts = {job: sum(task[0] == job for task in cluster.tasks) for job in jobs}
    leader, _ = cluster.tasks[0]
    context.context().configure_coordination_service(
        "standalone",
        service_leader=f"/job:{leader}/replica:0/task:0",
        cluster_register_timeout_in_ms=int(1000 * join_timeout),
        heartbeat_timeout_in_ms=int(1000 * lost_timeout),
        coordinated_jobs=[messages.CoordinatedJob(name=job, num_tasks=n) for job, n in counts.items()],
    )
    context.context().coordination_service.cluster_register_with_barrier = True


@contextmanager
def _ended_by(signum: signal.Signals) -> Iterator[None]:
    """Keep what a signal does: TensorFlow's workers take SIGTERM for a notice, and would not end at it."""
    handler = signal.getsignal(signum)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signum, handler)


_EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}, '
    "with the index of each host"
)


@dataclass(frozen=True)
class Cluster:
    """The workers that TF_CONFIG lists, the chief first, and which of them this process is."""

    tasks: tuple[tuple[str, int], ...]
    addresses: tuple[str, ...]
    index: int

    @classmethod
    def read(cls) -> Cluster:
        """The cluster of the environment variable TF_CONFIG."""
        text = os.environ.get("TF_CONFIG", "")
        try:
            config = json.loads(text)
            jobs, own = config["cluster"], (config["task"]["type"], int(config["task"]["index"]))
            listed = {(job, i): str(host) for job in _JOBS for i, host in enumerate(jobs.get(job, []))}
        except (ValueError, TypeError, KeyError, AttributeError):
            raise InputError(f"TF_CONFIG must be like {_EXAMPLE}. Received: {text!r}.") from None
        surplus = sorted(set(jobs) - set(_JOBS))
        require(not surplus, f"TF_CONFIG: jobs are chief and worker. Received: {', '.join(surplus)}.")
        require(own in listed, f"TF_CONFIG: the task {own[0]} {own[1]} is not in the cluster {jobs}.")
        addresses = tuple(listed.values())
        is_listed = len(set(addresses)) == len(addresses) and all(map(_ADDRESS.fullmatch, addresses))
        require(is_listed, f"TF_CONFIG: each worker needs a host:port of its own. Received: {addresses}.")
        return cls(tuple(listed), addresses, list(listed).index(own))

    def named(self, index: int) -> str:
        """A worker as a message calls it."""
        job, task = self.tasks[index]
        return f"{job} {task} ({self.addresses[index]})"

    def mentioned(self, message: str) -> list[str]:
        """The other workers of which an error of TensorFlow speaks."""
        found = re.findall(r"/job:(\w+)/(?:replica:0/)?task:(\d+)", message)
        tasks = dict.fromkeys((job, int(task)) for job, task in found)
        indices = [self.tasks.index(task) for task in tasks if task in self.tasks]
        return [self.named(index) for index in indices if index != self.index]

    def explained(self, message: str, join_timeout: float) -> str:
        """What an error of TensorFlow while the cluster forms means."""
        if "gRPC server" in message:
            return (
                f"Cannot listen at {self.addresses[self.index]}: its port is in use, by another run perhaps."
            )
        if "startup" in message:
            return 'Make the strategy "multiworker" before anything else uses TensorFlow\'s devices.'
        timed_out = message.rpartition("Some timed out task names")[2]
        missing = ", ".join(self.mentioned(timed_out)) or "the others"
        said = f"{self.named(self.index)} waited {join_timeout:g} s in vain for {missing}."
        return f"{said} Start all workers of TF_CONFIG, or wait longer (--join-timeout)."


_JOBS = ("chief", "worker")
_ADDRESS = re.compile(r"\S+:\d+")


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one worker under `strategy` that writes files."""
    return strategy.extended.should_checkpoint


class Workers:
    """The processes that work together under one strategy; every method is called by all of them.

    With one process all of it comes down to a plain call.

    Args:
        strategy: that the run is under; None: this process works alone.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None) -> None:
        self.strategy: Any = strategy
        self.is_chief = strategy is None or is_chief(strategy)
        self.count = 1 if strategy is None else getattr(strategy.extended, "_num_workers", 1)
        self.cluster = Cluster.read() if self.count > 1 else None
        self.index = self.cluster.index if self.cluster else 0

    def exchange(self, text: str) -> list[str]:
        """What each worker has to say, in order."""
        if self.cluster is None:
            return [text]
        import numpy as np  # late: the command line starts sooner without it

        codes = np.frombuffer(text.encode(), np.uint8).astype(np.float32)
        with self.watched():
            sizes = self._gathered(np.array([len(codes)], np.float32))[:, 0].astype(int)
            rows = self._gathered(np.pad(codes, (0, 1 + max(sizes) - len(codes))))
        with suppress(WorkerLost), self.watched():
            self._gathered(np.zeros(1, np.float32))  # all have heard before one may end
        return [bytes(map(int, row[:size])).decode() for row, size in zip(rows, sizes, strict=True)]

    def _gathered(self, values: np.ndarray) -> np.ndarray:
        """The `values` (N,) of every worker, (workers, N); they are as many on each."""
        gathered = self.strategy.experimental_local_results(self._gather(values[None]))[0].numpy()
        return gathered[:: len(gathered) // self.count]  # the devices of a worker say the same

    @cached_property
    def _gather(self) -> Callable[[np.ndarray], Any]:
        import tensorflow as tf

        def gather(row: Any) -> Any:
            on_device = tf.identity(row)
            return tf.distribute.get_replica_context().all_gather(on_device, axis=0)

        @tf.function(autograph=False, input_signature=[tf.TensorSpec((1, None), tf.float32)])
        def run(row: Any) -> Any:
            return self.strategy.run(gather, (row,))

        return run

    def wait(self) -> None:
        """Until all are here."""
        self.exchange("")

    def together(self, work: Callable[[], Result]) -> Result:
        """`work()` on every worker; if it is bad input to one of them, all are told."""
        if self.cluster is None:
            return work()
        problem, result = None, None
        try:
            result = work()
        except InputError as error:
            problem = error
        said = self.exchange(str(problem or ""))
        told = [f"{self.cluster.named(index)}: {text}" for index, text in enumerate(said) if text]
        if told:
            raise InputError("\n".join(told)) from problem
        return result  # type: ignore[return-value]

    def on_chief(self, work: Callable[[], Result], otherwise: Any = None) -> Result:
        """`work()` on the chief, while the others wait for it, and `otherwise` on these."""
        return self.together(work if self.is_chief else lambda: otherwise)

    def agree(self, what: str, value: object) -> None:
        """Check that all workers have the same `value`."""
        values = self.exchange(str(value))
        if self.cluster is not None and len(set(values)) > 1:
            listed = ", ".join(f"{self.cluster.named(i)} {text}" for i, text in enumerate(values))
            raise InputError(f"The workers differ in {what}: {listed}.")

    def share(self, directory: Path) -> None:
        """Check that all workers see the same `directory`."""
        if self.cluster is None:
            return
        with _sign(directory, self.is_chief) as name:
            (sign, *_) = self.exchange(name)
            self.together(lambda: _see(directory / sign))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within it a worker that is lost raises `WorkerLost` on the others."""
        import tensorflow as tf

        lost = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)
        try:
            yield
        except lost as error:
            if self.cluster is None:
                raise
            who = ", ".join(self.cluster.mentioned(str(error))) or "another worker"
            raise WorkerLost(f"{self.cluster.named(self.index)} stops: {who} is gone.") from error


@contextmanager
def _sign(directory: Path, is_chief: bool) -> Iterator[str]:
    """The name of a file that the chief makes for a while."""
    if not is_chief:
        yield ""
        return
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".shared-") as file:
        yield Path(file.name).name


def _see(path: Path) -> None:
    require(
        path.exists(),
        f"this worker does not see what the chief writes in {path.parent}; it must be a shared directory.",
    )
