"""A disk that is full, for the tests."""

import resource
from contextlib import contextmanager


@contextmanager
def full_disk(size=64):
    """Within it no file of this process can grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
