"""The cache outside the tree: things that are slow to obtain and the same for every checkout."""
import contextlib
import fcntl
import hashlib
import os


def directory(*parts):
    base = os.environ.get("BULKHEAD_CACHE")
    if not base:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        base = os.path.join(home, "bulkhead")
    return os.path.join(os.path.abspath(base), *parts)


def key(*parts):
    """A name for what was made of these: strings, bytes, and lists and dictionaries of them."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(part).encode() + b"\0")
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def lock(name):
    """One process at a time fills a part of the cache; the others wait."""
    os.makedirs(directory(), exist_ok=True)
    with open(directory(name + ".mutex"), "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
