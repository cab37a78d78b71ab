"""Workers of one run as real processes on 127.0.0.1.

They are forked from a server that has imported TensorFlow once, which takes longer than all they do.
"""

import json
import os
import socket
import sys
import traceback
from multiprocessing import get_context
from pathlib import Path

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["worker_steps", "worker_runs", "keras_cv"])
PATIENCE = 300  # seconds, for machines under load


def free_addresses(count=2):
    """As many addresses of this host that nobody listens at."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return addresses


class Worker:
    """A process that runs `work(*arguments)` as the worker `index` of those at `addresses`."""

    def __init__(self, log, addresses, index, work, *arguments):
        self.log = Path(log)
        self.log.touch()
        self.name = f"worker {index} ({addresses[index]})"
        self.process = FORKS.Process(target=_run, args=(self.log, addresses, index, work, arguments))
        self.process.start()

    @property
    def output(self):
        return self.log.read_text()

    def end(self, patience=PATIENCE):
        """Its exit code and its output."""
        self.process.join(patience)
        assert self.process.exitcode is not None, f"still running:\n{self.output}"
        return self.process.exitcode, self.output

    def kill(self):
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


def _run(log, addresses, index, work, arguments):
    task = {"type": "worker", "index": index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        work(*arguments)
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def endings(group):
    """Exit codes and outputs."""
    return zip(*(worker.end() for worker in group), strict=True)
