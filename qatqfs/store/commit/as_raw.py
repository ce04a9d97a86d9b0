"""Commits of files that a rule wants raw: a raw file takes the container's place.

Programs write under a temporary name and rename, so the rule that a file meets is known when it is committed. The raw
file is complete before it gets its name. Then two stored files have the same logical name and mtime for a moment; the
container counts, with the entry that builds on it. Then the container is removed. A kill before that leaves a dirty
file that is committed again. A kill after that leaves a raw file that the log names
(:mod:`qatqfs.store.commit.recovery`).
"""

import contextlib
import errno
import os
import stat

from qatqfs.store import paths
from qatqfs.store.attributes import key_of
from qatqfs.store.commit.metadata_copy import MetadataCopy
from qatqfs.store.names.node import Node
from qatqfs.store.names.tree import Tree
from qatqfs.store.staging.area import NEW
from qatqfs.store.staging.entry import StagingEntry
from qatqfs.store.staging.snapshot import Snapshot, SnapshotLost
from qatqfs.store.staging.space import no_space
from qatqfs.store.staging.view import chunks_of
from qatqfs.store.system.fd import Fd
from qatqfs.store.system.identity import Identity

_PIECE_BYTES = 4 << 20


def is_to_be_raw(tree: Tree, node: Node, path: bytes) -> bool:
    """Whether a rule wants a file raw, and it can be stored so."""
    _, name = paths.split(path)
    if not tree.context.options.is_raw(path) or not paths.plain_name_allowed(name) or node.stays_container:
        return False
    st = os.fstat(node.fd.number)
    return st.st_nlink == 1 and not node.several_names and os.geteuid() in (0, st.st_uid)


def commit_raw(tree: Tree, node: Node, entry: StagingEntry, snapshot: Snapshot, path: bytes) -> bytes | None:
    """Put a snapshot in place of the file's container, as a raw file. The caller removes the entry then.

    The commit lock is held.

    Returns:
        The path that has to be made durable before the entry is removed, ``b""`` if none has to, or ``None`` if the
        commit has to be tried again.

    Raises:
        OSError: it failed; nothing has changed.
    """
    area, io = entry.area, tree.context.io
    name = area.new_id() + NEW
    fd = area.open_new(name)
    placed = False
    try:
        if not _write(entry, snapshot, fd):
            node.stay_container()
            return None
        copy = MetadataCopy(io, node, entry, fd)
        while True:
            if not copy.is_complete:
                node.stay_container()
                return None
            with node.lock, tree.lock:
                changed = entry.size != snapshot.size or snapshot.changed.held_bytes(1)
                if changed or snapshot.cancelled or node.staging is not entry or node.path != path:
                    return None
                if not copy.has_to_be_renewed(whole=True):
                    copy.bring_up_to_date(whole=True)
                    placed = _swap(tree, node, entry, (name, fd), durable=copy.durable)
                    return (path if copy.durable else b"") if placed else None
            copy.renew()
    finally:
        if not placed:
            area.abandon(name, fd)


def _write(entry: StagingEntry, snapshot: Snapshot, fd: Fd) -> bool:
    """Write a snapshot to an empty file, its holes as holes.

    Returns:
        ``False`` if a chunk of it is damaged. A container takes a damaged chunk over as it is; a raw file cannot.

    Raises:
        OSError: another failure.
    """
    io, size, chunk_size = entry.area.io, snapshot.size, snapshot.chunk_size
    io.ftruncate(fd, size)
    per_piece = max(1, _PIECE_BYTES // chunk_size)
    for first in range(0, chunks_of(size, chunk_size), per_piece):
        if snapshot.cancelled:
            raise SnapshotLost("the file was cut or removed")
        stop = min(first + per_piece, chunks_of(size, chunk_size))
        if all(map(snapshot.is_hole, range(first, stop))):
            continue
        try:
            data = snapshot.read(first * chunk_size, min(stop * chunk_size, size))
        except OSError as err:
            if err.errno != errno.EIO:
                raise
            return False
        if io.pwrite_all(fd, data, first * chunk_size) != len(data):
            raise no_space()
    return True


def _swap(tree: Tree, node: Node, entry: StagingEntry, draft: tuple[bytes, Fd], *, durable: bool) -> bool:
    """Let a complete raw file take the container's place, content and namespace lock held.

    Returns:
        ``False`` if the file has to stay a container.

    Raises:
        OSError: it failed; the container is still in place.
    """
    assert node.path is not None
    io, times, old = tree.context.io, tree.commit_times, node.key
    (name, fd), staging = draft, entry.area.directory.number
    with contextlib.ExitStack() as stack:
        try:
            directory, _, plain = stack.enter_context(tree.parent(node.path))
            stored = paths.container_name(plain)
            there = os.stat(stored, dir_fd=directory, follow_symlinks=False)
        except OSError:  # gone, or not ours to change: the ordinary commit handles that
            there = None
        if there is None or key_of(there) != node.key or not _is_free(directory, plain):
            node.stay_container()
            return False
        ctime_ns = times.ctime_ns(node.attributes())
        try:
            entry.log.intent(Identity.of(fd.number))
            with times.unchanged(directory):
                io.rename(staging, name, directory, plain)
                if durable:  # else a loss of power might leave neither file
                    io.fsync_directory(directory)
                io.unlink(directory, stored)
        except OSError as err:
            with contextlib.suppress(OSError):
                if Identity.of(fd.number) == _identity_at(directory, plain):
                    io.unlink(directory, plain)  # the container stays, and hides this only until its mtime is set
            with contextlib.suppress(OSError):
                entry.log.held(entry.view.chunks)
            if not isinstance(err, PermissionError):
                raise
            node.stay_container()
            return False
    times.committed(os.fstat(fd.number), ctime_ns)
    node.become_raw(fd, key_of(os.fstat(fd.number)))
    with contextlib.suppress(OSError):
        entry.log.done()
    tree.rekey(node, old)
    return True


def _identity_at(directory: int, name: bytes) -> Identity:
    fd = Fd(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory))
    return Identity.of(fd.number)


def _is_free(directory: int, name: bytes) -> bool:
    """Whether a raw file may get a name: it is free, or that of a regular file that the container hides."""
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return True
