"""Nodes: one for each regular file that is open or dirty; reading, writing and making durable.

What a node knows, and which lock protects it, is in :mod:`qatqfs.store.names.state`.
"""

import errno
import os
import time

from qatqfs.store.attributes import Attributes, from_stat
from qatqfs.store.errors import os_error
from qatqfs.store.locks import assert_held
from qatqfs.store.names.own_files import is_writable, open_whatever_the_mode
from qatqfs.store.names.state import NodeState, Storage
from qatqfs.store.reading.cache import Chunk
from qatqfs.store.reading.container import ContainerFile, Retired, logical_length
from qatqfs.store.staging.area import FILES_OF_ENTRY
from qatqfs.store.staging.entry import StagingEntry, create_entry
from qatqfs.store.system.fd import Fd, pread_exact
from qatqfs.store.system.identity import Identity


class Node(NodeState):
    """One regular file, whatever it is called and however often it is open."""

    def container(self) -> ContainerFile:
        """Return the container that holds the committed content.

        Opening one without an index may take seconds. So neither a thread that holds the namespace lock nor the thread
        that answers requests calls this.

        Raises:
            OSError: EIO when it is no container.
        """
        while True:
            found = self._container
            if found is not None:
                return found
            # Opening may take long, and must not undo what a commit does meanwhile. If one did something, begin anew.
            generation = self._generation
            try:
                opened = ContainerFile(self.fd, self.path or b"(unlinked)", self.context.reading)
            except OSError:
                if self._generation == generation:
                    raise
                continue
            with self.context.namespace_lock:
                if self._generation == generation and self._container is None:
                    self._container = opened

    # -- attributes ------------------------------------------------------------------------------------

    @property
    def mtime_ns(self) -> int:
        """The logical modification time in nanoseconds."""
        staging, fd = self.staging, self.fd
        return staging.mtime_ns if staging is not None else os.fstat(fd.number).st_mtime_ns

    def attributes(self) -> Attributes:
        """Return what stat(2) shows, without walking a container; raises OSError."""
        staging, fd = self.staging, self.fd  # a commit may exchange both; these references keep them open
        st = os.fstat(fd.number)
        if st.st_nlink == 0 and self.path is not None:
            with self.context.namespace_lock:  # a commit has taken the old container's name and goes on
                staging, fd = self.staging, self.fd
                st = os.fstat(fd.number)
        if staging is not None:
            staged, mtime_ns = staging.time.stat()
            return from_stat(st, staged=staged, mtime_ns=mtime_ns, base_blocks=st.st_blocks)
        if self.storage is Storage.RAW:
            return from_stat(st)
        container = self._container
        try:
            return from_stat(st, container.length if container is not None else self._length(fd))
        except OSError:
            return from_stat(st)

    def _length(self, fd: Fd) -> int:
        return logical_length(fd, self.path or b"(unlinked)", self.context.reading)

    def content_tag(self) -> object:
        """Return a value that changes when content changes without a write through this node.

        ``None`` if that cannot be told.
        """
        if self.staging is not None:
            return self.staging.entry_id
        if self.storage is Storage.RAW:
            return None
        container = self._container
        return container.content_id if container is not None else None

    # -- reading ---------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> Chunk:
        """Return exactly the bytes of a range, cut only at the end of the file; raises OSError."""
        staging, fd = self.staging, self.fd
        if staging is not None:
            data: Chunk = staging.read(offset, size)
        elif self.storage is Storage.RAW:
            data = pread_exact(fd.number, size, offset)
        else:
            container = self.container()
            if self.staging is not None:  # a commit in place may be changing the inode that was just opened
                return self.read(offset, size)
            try:
                data = container.read(offset, size)
            except Retired:
                if self.staging is None and self._container is container:
                    raise
                return self.read(offset, size)
        self.context.reading.counters.add("read_bytes", len(data))
        return data

    def read_cached(self, offset: int, size: int) -> Chunk | None:
        """Return a range if that takes no disk access and no decoding, else ``None``; never blocks."""
        container = self._container
        if self.staging is not None or container is None or self.storage is Storage.RAW:
            return None
        data = container.read_cached(offset, size)
        if data is not None:
            self.context.reading.counters.add("read_bytes", len(data))
        return data

    # -- writing ---------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> int:
        """Write bytes and return how many; from then on they survive the end of the daemon.

        Raises:
            OSError: EFBIG beyond the largest file, EIO when content that has to be kept is damaged, ENOSPC, and what
                else the disk reports.
        """
        written = self._write_raw(data, offset)
        if written is None:
            if offset + len(data) > self.context.options.max_file_size:
                raise os_error(errno.EFBIG)
            with self.lock:
                written = self._write_raw(data, offset)  # a commit may have made it raw meanwhile
                if written is None:
                    written = self._write_staged(data, offset)
        self.context.reading.counters.add("write_bytes", written)
        return written

    def _write_raw(self, data: bytes | bytearray | memoryview, offset: int) -> int | None:
        if self.storage is not Storage.RAW:
            return None
        fd = self.fd
        if self.context.staging is not None:
            self.context.staging.space.leave_room(max(0, offset + len(data) - os.fstat(fd.number).st_size))
        return self.context.io.pwrite_all(fd, data, offset)

    def _write_staged(self, data: bytes | bytearray | memoryview, offset: int) -> int:
        staging = self.staging or self._begin_staging()
        try:
            written = staging.write(data, offset)
        finally:
            self._changed()
        if staging.sequential.take_step(self.context.options.tuning.ahead_bytes):
            self.context.advanced(self)
        return written

    def write_quickly(self, data: bytes | bytearray | memoryview, offset: int) -> int | None:
        """Write if that is one system call on an open staging file, else return ``None``; raises OSError."""
        if offset + len(data) > self.context.options.max_file_size or not self.lock.acquire(blocking=False):
            return None
        try:
            if self.staging is None or not self.staging.is_ready(offset, len(data)):
                return None
            return self.write(data, offset)
        finally:
            self.lock.release()

    def truncate(self, size: int) -> None:
        """Set the logical size in bytes; a file that grows reads as zeros there.

        Raises:
            OSError: as :meth:`write`.
        """
        if size > self.context.options.max_file_size and self.storage is not Storage.RAW:
            raise os_error(errno.EFBIG)
        with self.lock:
            if self.storage is Storage.RAW:
                self.context.io.ftruncate(self.fd, size)
                return
            staging = self.staging
            if staging is None and self._has_length(size):
                self._set_committed_mtime(time.time_ns())
                return
            staging = staging or self._begin_staging(discard=size == 0)
            try:
                staging.truncate(size)
                staging.time.set(time.time_ns())
            finally:
                self._changed()

    def _has_length(self, size: int) -> bool:
        try:
            return self.container().length == size
        except OSError:  # it is no container, so truncating replaces it
            return False

    def set_mtime(self, mtime_ns: int) -> None:
        """Set the logical modification time in nanoseconds; raises OSError."""
        with self.lock:
            if self.staging is None:
                self._set_committed_mtime(mtime_ns)
            else:
                self.staging.time.set(mtime_ns)
                self._changed()

    def _set_committed_mtime(self, mtime_ns: int) -> None:
        self.context.io.set_times(self.fd, None, mtime_ns)
        self.metadata_changed()

    def _begin_staging(self, *, discard: bool = False) -> StagingEntry:
        """Make the file dirty; content lock held.

        Args:
            discard: begin without the content that it has.
        """
        assert_held(self.lock)
        area = self.context.staging
        if area is None:
            raise os_error(errno.EROFS)
        base = None if discard else self.container()
        chunk_size = self.context.options.chunk_size
        if base is not None and base.length:
            chunk_size, _ = base.chunk_size_of(chunk_size)
        with area.room_for(FILES_OF_ENTRY, later=1):
            entry = create_entry(area)
            try:
                st = os.fstat(self.fd.number)
                path, identity = self.path, Identity.of(self.fd.number)
                self.several_names |= st.st_nlink > 1
                entry.begin(identity, chunk_size, base, path or b"", st.st_mtime_ns, several_names=self.several_names)
                self._stage(entry, path)
            except BaseException:
                entry.abandon()
                raise
        self.context.dirtied(self)
        return entry

    def fsync(self) -> None:
        """Make what was acknowledged so far durable; raises OSError."""
        with self.lock:
            if not (self.durable and self.metadata_durable) or self.storage is Storage.RAW:
                # First the base and, for a new file, its name, because recovery has to find them.
                self.make_container_durable()
            if self.staging is not None:
                self.staging.fsync(for_program=True)
                self.made_durable(self.sequence)

    def make_container_durable(self) -> None:
        """Make the backing inode and the file's name durable, whatever is in staging; raises OSError."""
        fd, path = self.fd, self.path
        self.metadata_durable = True  # set first, so that a chmod meanwhile clears it again
        try:
            self.context.io.fsync(fd)
        except BaseException:
            self.metadata_durable = False
            raise
        if path is not None:
            self.context.fsync_parent(path)
            with self.context.namespace_lock:
                self.durable = self.fd is fd and self.path == path

    def open_for_writing(self) -> None:
        """Make the descriptor of the backing inode writable; namespace lock held. Raises OSError.

        Raw files are written through it. So is a container whose commit cannot rename another over it. By then the mode
        of the file may forbid opening it; when a program opens it for writing, the mode does not yet.
        """
        assert_held(self.context.namespace_lock)
        if not is_writable(self.fd):
            self.fd = open_whatever_the_mode(self.context.staging, self.fd)
