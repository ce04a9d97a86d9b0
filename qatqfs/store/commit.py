"""Commits: staging entries become containers, in the background.

A commit reads the staging file without the content lock and remembers the node's sequence number. When the new
container is complete it takes the content lock and the namespace lock: if the number is still the same it logs
INTENT, renames the container over the old one and switches the node, else it throws the container away and
tries again later. A barrier (:meth:`Committer.sync`) does its last attempt with the content lock held, so that
a file which is written all the time is committed too.

When it happens: at once after the last writer closed the file; after it rested for a second if it stays open.
A file that is committed again and again waits ten times as long as its last commit took, so that appending a
little to a large file does not keep the machine busy. A failed commit is tried again with growing pauses; until
one succeeds the file is served from staging.
"""

import contextlib
import errno
import logging
import os
import stat
import threading
import time
from concurrent.futures import Executor

from qatqfs.codec import DType, QatcError
from qatqfs.store import names
from qatqfs.store.attributes import key_of
from qatqfs.store.containerfile import ContainerFile
from qatqfs.store.dtypechoice import choose_dtype, xattr_dtype
from qatqfs.store.encoder import ShortReadError, write_container
from qatqfs.store.files import copy_xattrs
from qatqfs.store.node import Node
from qatqfs.store.staging import StagingEntry
from qatqfs.store.sysfile import Fd, Identity, fsync_directory, pread_exact, set_times
from qatqfs.store.tree import Tree

log = logging.getLogger(__name__)

_COST_FACTOR = 10
_LONGEST_REST_S = 30.0
_FIRST_RETRY_S = 2.0
_LONGEST_RETRY_S = 300.0
_FREE_ATTEMPTS = 2
_EMPTY_CONTAINER_SIZE = 72  # format section 6: header, length, a payload of no values
_NEW_FLAGS = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOATIME


class Committer:
    """Turns staging entries into containers; one background thread, encoding on an executor.

    ``_condition`` protects the table of due times and the retry pauses.

    Args:
        tree: the names.
        lost_and_found: directory for content whose place was taken by somebody else.
        executor: threads to encode on.
    """

    def __init__(self, tree: Tree, lost_and_found: Fd, executor: Executor) -> None:
        self._tree = tree
        self._options = tree.context.options
        self._statistics = tree.context.reading.statistics
        self._lost_and_found = lost_and_found
        self._executor = executor
        self._condition = threading.Condition()
        self._due: dict[Node, float] = {}
        self._pause: dict[Node, float] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="qatqfs-commit", daemon=True)

    def start(self) -> None:
        """Start the background thread."""
        self._thread.start()

    # -- when ------------------------------------------------------------------------------------------

    def dirtied(self, node: Node) -> None:
        """Note that a node got uncommitted content."""
        self._set_due(node, self._rest(node))

    def released(self, node: Node) -> None:
        """Note that the last writer of a dirty node has closed it."""
        self._set_due(node, min(_COST_FACTOR * node.commit_cost, _LONGEST_REST_S))

    def _rest(self, node: Node) -> float:
        return max(self._options.idle_seconds, min(_COST_FACTOR * node.commit_cost, _LONGEST_REST_S))

    def _set_due(self, node: Node, delay: float) -> None:
        with self._condition:
            self._due[node] = time.monotonic() + max(delay, self._pause.get(node, 0.0))
            self._condition.notify()

    def _run(self) -> None:
        while (node := self._next_due()) is not None:
            try:
                self._commit_if_rested(node)
            except Exception:
                log.exception("commit of %r failed", node.path)
                self._retry_later(node)

    def _next_due(self) -> Node | None:
        with self._condition:
            while not self._stopping:
                if not self._due:
                    self._condition.wait()
                    continue
                node = min(self._due, key=self._due.__getitem__)
                wait = self._due[node] - time.monotonic()
                if wait <= 0:
                    del self._due[node]
                    return node
                self._condition.wait(wait)
            return None

    def _commit_if_rested(self, node: Node) -> None:
        if node.writers:
            remaining = node.changed_at + self._rest(node) - time.monotonic()
            if remaining > 0:
                self._set_due(node, remaining)
                return
        try:
            if not self._commit(node, exclusive=False):
                self._set_due(node, self._rest(node))
        except OSError as err:
            self._report_failure(node, err)
            self._retry_later(node)

    def _retry_later(self, node: Node) -> None:
        with self._condition:
            pause = min(2 * self._pause.get(node, _FIRST_RETRY_S / 2), _LONGEST_RETRY_S)
            self._pause[node] = pause
        self._set_due(node, pause)

    def _report_failure(self, node: Node, err: Exception) -> None:
        self._statistics.add("commit_failures")
        name = os.fsdecode(node.path or b"(unlinked)")
        log.error("%s: could not be committed and stays in staging: %s", name, err)

    def sync(self, below: bytes = b"") -> None:
        """Return once everything written so far at or below a logical path is in containers.

        Raises:
            OSError: the first failure, after all files were tried; staging is kept.
        """
        failure: OSError | None = None
        for node in self._tree.dirty_nodes(below):
            try:
                self._commit_now(node)
            except OSError as err:
                self._report_failure(node, err)
                self._retry_later(node)
                failure = failure or err
        if failure is not None:
            raise failure

    def _commit_now(self, node: Node) -> None:
        for _ in range(_FREE_ATTEMPTS):
            if self._commit(node, exclusive=False):
                return
        self._commit(node, exclusive=True)

    def stop(self) -> None:
        """Stop the background thread; call :meth:`sync` first to leave nothing in staging."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if self._thread.is_alive():
            self._thread.join()

    # -- how -------------------------------------------------------------------------------------------

    def _commit(self, node: Node, *, exclusive: bool) -> bool:
        """Commit one node; ``False`` if it changed meanwhile. Raises OSError, with staging kept."""
        with node.commit_lock:
            started = time.monotonic()
            with node.lock if exclusive else contextlib.nullcontext():
                with node.lock:
                    entry, sequence = node.staging, node.sequence
                    path = node.path
                if entry is None or path is None:
                    self._forget(node)
                    return True
                done = self._build_and_swap(node, entry, sequence, path)
            node.commit_cost = time.monotonic() - started
            if done:
                self._forget(node)
            return done

    def _forget(self, node: Node) -> None:
        with self._condition:
            self._pause.pop(node, None)
            if not node.dirty:
                self._due.pop(node, None)

    def _build_and_swap(self, node: Node, entry: StagingEntry, sequence: int, path: bytes) -> bool:
        where = entry.area.directory.number
        new = Fd(os.open(entry.new_name, _NEW_FLAGS, 0o600, dir_fd=where))
        try:
            if not self._encode(node, entry, path, new):
                return False
            replaces_content = os.fstat(node.fd.number).st_size > _EMPTY_CONTAINER_SIZE
            durable = entry.synced or node.durable or replaces_content
            if durable:
                os.fdatasync(new.number)
            swapped = self._swap(node, entry, sequence, new)
        except BaseException:
            entry.area.remove(entry.new_name)
            raise
        if swapped is None:
            entry.area.remove(entry.new_name)
            return False
        if durable and swapped:
            self._tree.fsync_parent(swapped)
        entry.drop()
        with self._tree.lock:
            self._tree.forget_if_idle(node)
        self._statistics.add("commits")
        return True

    def _encode(self, node: Node, entry: StagingEntry, path: bytes, new: Fd) -> bool:
        size = entry.size

        def read_at(offset: int, length: int) -> bytes:
            return pread_exact(entry.data.number, length, offset)

        dtype = choose_dtype(path, size, read_at, explicit=self._explicit_dtype(node, path))
        try:
            info = write_container(
                new.number,
                read_at,
                size,
                dtype,
                chunk_size=self._options.chunk_size,
                level=self._options.level,
                executor=self._executor,
                workers=self._options.workers,
            )
        except ShortReadError:  # truncated under us: the sequence number has moved on
            return False
        except QatcError as err:
            raise OSError(errno.EFBIG, str(err)) from err
        self._statistics.add("chunks_encoded", info.chunk_count)
        self._statistics.add("encoded_raw_bytes", size)
        self._statistics.add("encoded_stored_bytes", info.size)
        return True

    def _explicit_dtype(self, node: Node, path: bytes) -> DType | None:
        found = xattr_dtype(node.fd.proc_path)
        above = names.split(path)[0]
        while found is None and above:
            with contextlib.suppress(OSError), self._tree.directory(above) as fd:
                found = xattr_dtype(f"/proc/self/fd/{fd}")
            above = names.split(above)[0]
        return found or xattr_dtype(self._tree.root.proc_path) or self._options.rule_dtype(path)

    def _swap(self, node: Node, entry: StagingEntry, sequence: int, new: Fd) -> bytes | None:
        """Put the new container in place.

        Returns:
            The logical path it got (``b""`` in lost+found), or ``None`` if the node changed meanwhile.
        """
        with node.lock, self._tree.lock:
            if node.sequence != sequence or node.path is None:
                return None
            copy_metadata(node.fd, new, entry.mtime_ns)
            container = ContainerFile(new, node.path, self._tree.context.reading)
            old, path = node.key, node.path
            ctime_ns = self._tree.commit_times.ctime_ns(node.attributes())
            with contextlib.ExitStack() as stack:
                target = self._find_target(node, stack)
                entry.log_intent(Identity.of(new.number))
                if target is None:
                    self._to_lost_and_found(node, entry)
                    node.path = None
                else:
                    where = entry.area.directory.number
                    with self._tree.commit_times.unchanged(target[0]):
                        os.rename(entry.new_name, target[1], src_dir_fd=where, dst_dir_fd=target[0])
            self._tree.commit_times.committed(os.fstat(new.number), ctime_ns)
            node.committed(new, key_of(os.fstat(new.number)), container)
            self._tree.rekey(node, old)
            return path if target is not None else b""

    def _find_target(self, node: Node, stack: contextlib.ExitStack) -> tuple[int, bytes] | None:
        """Open the directory in which the node's container is; ``None`` if somebody else took its place."""
        assert node.path is not None
        try:
            fd, _, name = stack.enter_context(self._tree.parent(node.path))
            stored = names.container_name(name)
            there = os.stat(stored, dir_fd=fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return (fd, stored) if key_of(there) == node.key else None

    def _to_lost_and_found(self, node: Node, entry: StagingEntry) -> None:
        assert node.path is not None
        name = save_as_lost(entry, self._lost_and_found, node.path)
        fsync_directory(self._lost_and_found.number)
        self._statistics.add("lost_files")
        log.error(
            "%s: was replaced or removed in the backing directory while it had uncommitted content;"
            " what was written through the mount is kept as %s",
            os.fsdecode(node.path),
            os.fsdecode(name),
        )


def save_as_lost(entry: StagingEntry, lost_and_found: Fd, path: bytes) -> bytes:
    """Move a finished container into lost+found; returns its name there. Raises OSError."""
    name = names.container_name(names.split(path)[1][:180] + b"." + entry.entry_id)
    os.rename(entry.new_name, name, src_dir_fd=entry.area.directory.number, dst_dir_fd=lost_and_found.number)
    return name


def copy_metadata(source: Fd, target: Fd, mtime_ns: int) -> None:
    """Give a new container the owner, mode, ACL, xattrs and atime of the old one, and the logical mtime.

    Raises:
        OSError: a privileged daemon was not allowed to.
    """
    st = os.fstat(source.number)
    if key_of(st) == key_of(os.fstat(target.number)):
        return
    try:
        os.fchown(target.number, st.st_uid, st.st_gid)
    except PermissionError:
        if os.geteuid() == 0:
            raise
    os.fchmod(target.number, stat.S_IMODE(st.st_mode))
    copy_xattrs(source, target)
    set_times(target, st.st_atime_ns, mtime_ns)
