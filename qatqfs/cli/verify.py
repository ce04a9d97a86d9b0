"""``qatqfs verify``: check every checksum of containers, bare payloads, or a whole backing directory."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import click

from qatqfs.cli.contents import CONTAINER_SUFFIX, Found, Source, Storage, look
from qatqfs.cli.exits import say, shown
from qatqfs.cli.outcome import Outcome
from qatqfs.cli.progress import Progress
from qatqfs.cli.tables import bytes_text, count_text, json_option
from qatqfs.cli.values import DEFAULTS
from qatqfs.codec import UNLIMITED, QatcError, decode_any_payload, verify_container
from qatqfs.wording import damaged_chunk

_ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is wrong. The fields are the keys of the JSON output, and scripts rely on them.

    Attributes:
        path: the damaged file.
        chunk: number of the unreadable chunk, ``None`` if the whole file is concerned.
        offset: in the stored file, ``None`` if that is unknown.
        reason: one sentence.
        logical_offset: start of the chunk in the decoded content, ``None`` if that is unknown.
    """

    path: str
    chunk: int | None
    offset: int | None
    reason: str
    logical_offset: int | None = None

    def __str__(self) -> str:
        """Return the same words as the log of a mount has."""
        if self.chunk is None:
            return f"{shown(self.path)}: {self.reason}"
        return f"{shown(self.path)}: {damaged_chunk(self.chunk, self.logical_offset, self.offset, self.reason)}"


class _Stopped(Exception):
    """The user has interrupted the command."""


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path())
@json_option
def command(paths: tuple[str, ...], as_json: bool) -> int:
    """Check containers and bare QATQ payloads completely: structure, index and every checksum.

    PATH is a file or a directory; a directory stands for everything below it, and a backing directory also for its
    lost+found. A backing directory may be mounted at the same time. Each damaged chunk is one line on standard
    output, with its offsets in the decoded content (logical) and in the stored file, as in the log of a mount. The
    exit status is then 1. Raw files have no checksum and are only counted. Nothing is changed.

    \b
    Examples:
      qatqfs verify kv.bf16.qatc
      qatqfs verify --json backing
    """
    outcome = Outcome()
    contents = look(paths, outcome)
    notices = [
        f"{shown(path)}: there are a raw file and a container {shown(path + CONTAINER_SUFFIX)};"
        " a mount shows the one modified later"
        for path in contents.pairs
    ]
    wanted = [found for found in contents.files if found.storage is not Storage.RAW]
    raw = len(contents.files) - len(wanted)
    damages: list[Damage] = []
    with Progress(sum(found.size for found in wanted), "verifying", files=len(wanted)) as progress:

        def report(damage: Damage) -> None:
            damages.append(damage)
            outcome.bad_data()
            if not as_json:
                say(str(damage))

        checked = _check_all(wanted, progress, report, outcome)
    size = sum(found.size for found in checked)
    if as_json:
        result = {
            "files": len(checked),
            "stored_bytes": size,
            "raw_files": raw,
            "failed": outcome.failed,
            "corrupt": [asdict(damage) for damage in damages],
            "notices": notices,
        }
        say(json.dumps(result, indent=2))
    else:
        for notice in notices:
            say(f"notice: {notice}")
        if checked or raw or not outcome.failed:
            bad = len({damage.path for damage in damages})
            verdict = f"{count_text(bad, 'file')} damaged" if bad else "none damaged"
            without = f"; {count_text(raw, 'file')} raw, no checksum" if raw else ""
            failed = f"; {outcome.failed:,} could not be checked" if outcome.failed else ""
            say(f"{count_text(len(checked), 'file')} checked ({bytes_text(size)} stored), {verdict}{without}{failed}")
    return outcome.status


def _check_all(
    files: list[Found], progress: Progress, report: Callable[[Damage], None], outcome: Outcome
) -> list[Found]:
    """Check several files at a time and report in their order; return those that were checked."""
    checked = []
    stop = threading.Event()

    def advance(count: int) -> None:
        if stop.is_set():
            raise _Stopped
        progress.advance(count)

    with ThreadPoolExecutor(DEFAULTS.workers, thread_name_prefix="qatqfs-verify") as executor:
        futures = [executor.submit(_check, found, advance) for found in files]
        try:
            for found, future in zip(files, futures, strict=True):
                progress.begin(found.path)
                with outcome.of(found.path):
                    damages = future.result()
                    if damages is None:
                        continue
                    checked.append(found)
                    for damage in damages:
                        report(damage)
        finally:
            stop.set()
            executor.shutdown(cancel_futures=True)
    return checked


def _check(found: Found, progress: Callable[[int], None]) -> list[Damage] | None:
    """Return what is wrong with a file, ``None`` if it was removed. Raises OSError.

    A daemon writes a file with several names in place. So a file that changes while it is checked is checked again.
    """
    damages: list[Damage] = []
    for _ in range(_ATTEMPTS):
        try:
            with Source(found.path) as source:
                damages = _damages(source, progress)
                if not damages or not source.changed():
                    break
        except FileNotFoundError:
            return None
    return damages


def _damages(source: Source, progress: Callable[[int], None]) -> list[Damage]:
    if source.storage() is Storage.CONTAINER:
        problems = verify_container(source.read_at, source.size, limits=UNLIMITED, progress=progress)
        return [Damage(source.path, p.chunk, p.offset, str(p.error), p.logical_offset) for p in problems]
    try:
        decode_any_payload(source.read_payload())
    except QatcError as err:
        return [Damage(source.path, None, None, str(err))]
    finally:
        progress(source.size)
    return []
