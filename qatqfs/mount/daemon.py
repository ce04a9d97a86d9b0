"""The daemon's life: check, fork, open the store, mount, answer, unmount, commit, leave.

The parent process returns once the mount answers, or with the one line of error that the child sends through a pipe.
The parent forks before any thread or event loop exists. The child, the daemon, ends on umount(8), or on a signal such
as SIGTERM (:mod:`qatqfs.mount.signals`), which unmounts lazily. In both cases it commits everything first. A second
signal meanwhile leaves staging to the recovery of the next mount.
"""

import contextlib
import dataclasses
import json
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from qatqfs.mount import checks, mountinfo, readahead, signals
from qatqfs.mount.errors import MountError
from qatqfs.mount.logs import set_up_logging
from qatqfs.mount.opening import open_store
from qatqfs.store import StoreOptions
from qatqfs.store.facade import FileStore
from qatqfs.store.system.descriptors import fitting_threads

log = logging.getLogger(__name__)

_MAX_TASKS = 256
_MAX_REPORT = 65536
_LIBFUSE_VOICES = ("fuse: ", "fusermount3: ")


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What to mount where, and how.

    Attributes:
        backing: BACKING, a directory.
        mountpoint: MOUNTPOINT, a directory.
        store: settings of the store.
        foreground: do not fork, and log to standard error.
        allow_other: let other users in (root only).
        log_file: where a daemon logs, ``None`` for its default (see :mod:`qatqfs.mount.logs`).
        debug: log more.
        fuse_options: further options for the kernel, such as ``dev`` or ``noexec``.
        nonempty: also mount over a directory that is not empty.
    """

    backing: str
    mountpoint: str
    store: StoreOptions = field(default_factory=StoreOptions)
    foreground: bool = False
    allow_other: bool = False
    log_file: str | None = None
    debug: bool = False
    fuse_options: tuple[str, ...] = ()
    nonempty: bool = False

    def resolved(self) -> "MountOptions":
        """Return the same with absolute paths, for a daemon that leaves the current directory."""
        return dataclasses.replace(
            self,
            backing=os.path.realpath(self.backing),
            mountpoint=mountinfo.resolve(self.mountpoint),
            log_file=os.path.realpath(self.log_file) if self.log_file is not None else None,
        )


class _Unannounced(MountError):
    """The mount ended before its caller was told that it answers."""


Ready = Callable[[list[str]], None]
"""Called once the mount answers, with what the user should know, which is often nothing."""


def mount(options: MountOptions, tell: Callable[[str], None]) -> None:
    """Mount; returns once the mount answers, or in the foreground once it is unmounted and committed.

    Args:
        options: what and how.
        tell: shows the user a line that is no error.

    Raises:
        MountError: the mount was refused or failed; nothing is mounted.
    """

    def tell_all(notes: list[str]) -> None:
        for note in notes:
            tell(note)

    options = options.resolved()
    checks.check_file_limit()
    checks.check_device()
    checks.check_allow_other(options.allow_other)
    checks.check_mountpoint(options.mountpoint, options.backing, nonempty=options.nonempty)
    checks.check_backing(options.backing)
    if options.log_file is not None:
        checks.check_log_file(options.log_file, options.mountpoint)
    if options.foreground:
        _serve(options, tell_all)
    else:
        tell_all(_start_daemon(options))


def _start_daemon(options: MountOptions) -> list[str]:
    """Fork a daemon and wait for its report; returns its notes, raises MountError with its error."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it may have been closed before this process started
            stream.flush()
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(readable)
        _run_daemon(options, writable)
    os.close(writable)
    try:
        with os.fdopen(readable, "rb") as pipe:
            report = pipe.read(_MAX_REPORT)
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGTERM)  # a user who interrupts this does not want a mount later
        raise
    if not report:
        _, status = os.waitpid(pid, 0)
        raise MountError(f"the daemon ended before the mount answered (status {os.waitstatus_to_exitcode(status)})")
    found = json.loads(report)
    if found["error"] is not None:
        os.waitpid(pid, 0)
        raise MountError(found["error"])
    return list(found["notes"])


def _run_daemon(options: MountOptions, report_to: int) -> None:
    """Be the daemon; never returns."""
    status = 1

    def report(notes: list[str], error: str | None = None) -> None:
        nonlocal report_to
        if report_to >= 0:
            try:
                os.write(report_to, json.dumps({"notes": notes, "error": error}).encode()[:_MAX_REPORT])
            except BrokenPipeError:  # the parent has ended without waiting for the mount
                os.kill(os.getpid(), signal.SIGTERM)
            os.close(report_to)
            report_to = -1

    try:
        os.setsid()
        os.chdir("/")
        _let_go_of_descriptors(report_to)
        _serve(options, report)
        status = 0
    except MountError as err:
        report([], str(err))
    except BaseException:
        log.exception("the daemon failed")
        report([], "the daemon failed unexpectedly; its log has the details")
    finally:
        logging.shutdown()
        os._exit(status)


def _let_go_of_descriptors(keep: int) -> None:
    """Close inherited descriptors: a caller may wait for the end of a pipe or for a lock that they keep."""
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number > 2 and number != keep:
            with contextlib.suppress(OSError):  # the descriptor that listed them
                os.close(number)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)


def _serve(options: MountOptions, ready: Ready) -> None:
    """Open the store, mount, and answer requests until unmounted; then commit and close."""
    os.umask(0)  # modes come from the kernel with the caller's umask applied
    _raise_file_limit()
    notes = set_up_logging(
        options.backing,
        options.mountpoint,
        options.log_file,
        foreground=options.foreground,
        debug=options.debug,
        read_only=options.store.read_only,
    )
    workers = fitting_threads(options.store.workers)
    store = open_store(options.backing, dataclasses.replace(options.store, workers=workers))
    try:
        _serve_store(options, store, lambda more: ready([*notes, *more]))
    except _Unannounced:
        _close_store(store)  # who did not wait for the announcement may have written already
        raise
    except BaseException:
        store.close(commit=False)
        raise
    _close_store(store)


def _serve_store(options: MountOptions, store: FileStore, ready: Ready) -> None:
    import pyfuse3  # commands without a mount must work where libfuse does not
    import trio

    from qatqfs.mount.operations import Operations

    stop = signals.await_stop()  # before the mount exists: from then on no signal may end this process at once
    with _libfuse_reasons() as reasons:
        try:
            pyfuse3.init(Operations(store), options.mountpoint, _fuse_options(options))
        except RuntimeError as err:
            raise MountError(f"cannot mount at {options.mountpoint!r}: {reasons() or err}") from err
    log.info("mounted %s at %s", options.backing, options.mountpoint)
    try:
        stopped_early = stop.number is not None
        told = trio.run(_answer, options.mountpoint, store, stop, lambda: ready(_notes(store)))
        if not told and (stopped_early or not options.foreground):  # the parent waits for the answer
            ended = f"stopped by {stop.number.name}" if stop.number is not None else "unmounted"
            raise _Unannounced(f"{ended} before the mount answered")
    finally:
        pyfuse3.close(unmount=True)
        log.info("unmounted %s", options.mountpoint)


@contextmanager
def _libfuse_reasons() -> Iterator[Callable[[], str | None]]:
    """Catch why a mount failed, which libfuse says on standard error only.

    Yields:
        A function that returns the last reason.
    """
    readable, writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe, because there may be no writable directory
    stderr = os.dup(2)
    os.dup2(writable, 2)
    os.close(writable)

    def last_reason() -> str | None:
        with contextlib.suppress(BlockingIOError):
            lines = os.read(readable, _MAX_REPORT).decode(errors="replace").splitlines()
            return next((line for line in reversed(lines) if line.startswith(_LIBFUSE_VOICES)), None)
        return None

    try:
        yield last_reason
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(readable)


async def _answer(mountpoint: str, store: FileStore, stop: signals.StopRequest, ready: Callable[[], None]) -> bool:
    """Answer requests until the filesystem is unmounted or a signal asks to stop.

    Returns:
        Whether ``ready`` was called; ``False`` if the mount ended at the same moment.
    """
    import pyfuse3
    import trio

    told = False

    async def announce() -> None:
        # abandon_on_cancel: if the loop ends first, no thread will ever answer this stat.
        nonlocal told
        st = await trio.to_thread.run_sync(os.stat, mountpoint, abandon_on_cancel=True)
        readahead.widen(st.st_dev)
        await trio.to_thread.run_sync(store.serves, mountpoint, mountinfo.device_text(st.st_dev))
        if stop.number is None:
            told = True
            ready()

    token = trio.lowlevel.current_trio_token()
    stop.when_made(lambda: token.run_sync_soon(pyfuse3.terminate, idempotent=True))
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(announce)
            await pyfuse3.main(max_tasks=_MAX_TASKS)
            nursery.cancel_scope.cancel()
    finally:
        stop.when_made(None)
    if stop.number is not None:
        log.info("stopping on %s", stop.number.name)
    return told


def _notes(store: FileStore) -> list[str]:
    notes = []
    if store.in_doubt:
        files = "1 file" if store.in_doubt == 1 else f"{store.in_doubt} files"
        notes.append(
            f"the newest content of {files} may be torn, because the machine went down before it was known to be on"
            " disk: it is kept in .qatqfs/lost+found in the backing directory, and the log names it"
        )
    if store.recovered is None:
        notes.append(
            "only the owner of .qatqfs can tell whether files have uncommitted content; it would not show here"
        )
    if not store.recovered:
        return notes
    files = "1 file has" if store.recovered == 1 else f"{store.recovered} files have"
    if store.options.read_only:
        return [f"{files} uncommitted content, which shows after the next read-write mount"]
    return [*notes, f"{files} content from before an unclean end; it is there, and being committed now"]


def _close_store(store: FileStore) -> None:
    def leave_at_once(number: int, frame: object) -> None:
        log.warning("second signal: what is not committed is left to the next mount")
        # On a new thread, because this one may hold the locks that are needed, and goes on meanwhile.
        threading.Thread(target=_leave, args=(store,), daemon=True).start()

    signals.on_second_request(leave_at_once)
    try:
        store.close()
    except Exception as err:
        if not isinstance(err, OSError):
            log.exception("closing failed")
        if store.pending().files:
            raise MountError(f"not everything could be committed; the next mount tries again: {err}") from err
        raise MountError(f"everything is committed, but may not survive a loss of power: {err}") from err


def _leave(store: FileStore) -> None:
    """Make what is in staging durable, or log why that fails, and end the process."""
    try:
        store.secure_staging()
    except OSError:
        pass  # secure_staging has logged it
    except Exception:
        log.exception("what is left in staging may not survive a loss of power")
    finally:
        logging.shutdown()
        os._exit(1)


class _Option(str):
    """An option for pyfuse3. pyfuse3 encodes options as ASCII, but a path in an option may have any bytes."""

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        """Return the bytes of the option, whatever the encoding."""
        return os.fsencode(str(self))


def _fuse_options(options: MountOptions) -> set[str]:
    escaped = options.backing.replace("\\", "\\\\").replace(",", "\\,")
    found = {f"fsname={escaped}", "subtype=qatqfs", "default_permissions", *options.fuse_options}
    if options.allow_other:
        found.add("allow_other")
    if options.store.read_only:
        found.add("ro")
    return {_Option(word) for word in found}


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
