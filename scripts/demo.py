"""The demo: make a K/V cache, store it through a mount, read it back, compare every byte, show the sizes.

Run it with scripts/demo, which installs what it needs.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import textwrap
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from demo_lib.dumps import Dump, all_dumps
from demo_lib.machine import drop_caches, fuse_obstacle
from demo_lib.report import measure, table
from demo_lib.session import DemoError, Session, exit_status, qatqfs
from demo_lib.transformer import Shape, kv_cache

_REPOSITORY = Path(__file__).resolve().parent.parent
_TEXT = _REPOSITORY / "LICENSE"
_TOKENS = 1536
_SEED = 2024


def say(step: str, text: str) -> None:
    """Print one step as it is done."""
    print(f"{step:8} {text}", flush=True)


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that a piece of work took."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rate(size: int, seconds: float) -> str:
    """Format a speed in millions of bytes a second."""
    return f"{size / 1e6 / seconds:,.0f} MB/s"


def make_dumps(session: Session) -> list[Dump]:
    """Run the model and turn its cache into files."""
    shape = Shape()
    start = time.perf_counter()
    cache = kv_cache(_TEXT.read_bytes(), _TOKENS, _SEED, shape)
    seconds = time.perf_counter() - start
    say(
        "model",
        f"randomly initialised, not trained: {shape.layers} layers, {shape.heads} query, {shape.kv_heads} kv "
        f"heads of {shape.head_dim}; {_TOKENS} tokens of {_TEXT.name}; {seconds:.1f} s",
    )
    dumps = all_dumps(cache, session.scratch)
    total = sum(len(dump.content) for dump in dumps)
    say("dumps", f"its K/V cache as {len(dumps)} files of f32, f16 and bf16: {total / 1e6:.1f} MB")
    return dumps


def compare(dumps: Iterable[Dump], read: Callable[[Dump], bytes], where: str) -> float:
    """Read every dump back, compare its SHA-256, and return the seconds spent reading alone."""
    seconds = 0.0
    for dump in dumps:
        start = time.perf_counter()
        content = read(dump)
        seconds += time.perf_counter() - start
        if hashlib.sha256(content).hexdigest() != dump.sha256:
            raise DemoError(f"{dump.name}: {where} differs from what was written")
    return seconds


def write_all(dumps: Iterable[Dump], directory: Path) -> None:
    """Write every dump with the program that it names."""
    for dump in dumps:
        path = directory / dump.name
        path.parent.mkdir(exist_ok=True)
        try:
            dump.write(path)
        except (OSError, subprocess.SubprocessError) as error:
            raise DemoError(f"{dump.name}: {dump.program} could not write it: {error}") from None


def read_mapped(dumps: Iterable[Dump], directory: Path) -> None:
    """Map the .npy file as numpy does for large arrays; its pages come through the mount one by one."""
    for dump in dumps:
        if dump.name.endswith(".npy"):
            mapped = np.load(directory / dump.name, mmap_mode="r")
            if not dump.content.endswith(mapped.tobytes()):
                raise DemoError(f"{dump.name}: mapped into memory it differs from what was written")


def with_mount(session: Session, dumps: list[Dump]) -> dict[str, Path]:
    """Take the dumps through a mount and back; return where each one's container is."""
    total = sum(len(dump.content) for dump in dumps)
    mountpoint = session.mountpoint
    session.mount()
    say("mount", "qatqfs mount BACKING MNT, in a temporary directory")

    written = timed(lambda: write_all(dumps, mountpoint))
    programs = Counter(dump.program for dump in dumps)
    say("write", "through the mount, by " + ", ".join(f"{name} ({count})" for name, count in programs.items()))
    synced = timed(lambda: qatqfs("sync", mountpoint))
    say("", f"{rate(total, written)} until the last close; with qatqfs sync {rate(total, written + synced)}")

    dropped = drop_caches()
    session.unmount()
    session.mount()
    say("remount", ("page cache dropped, " if dropped else "") + "unmounted, mounted again: nothing is cached")

    seconds = compare(dumps, lambda dump: (mountpoint / dump.name).read_bytes(), "what the mount returns")
    read_mapped(dumps, mountpoint)
    say("read", f"{len(dumps)} files back through the mount, every SHA-256 equal: {rate(total, seconds)}")
    qatqfs("verify", session.backing)
    say("verify", "qatqfs verify BACKING: every checksum right")
    session.unmount()

    containers = {dump.name: session.backing / f"{dump.name}.qatc" for dump in dumps}
    one = next(dump for dump in dumps if dump.name == "packed.bf16")
    target = session.scratch / "decoded"
    qatqfs("decode", containers[one.name], "-o", target)
    compare([one], lambda _: target.read_bytes(), "what qatqfs decode restores")
    say("decode", f"unmounted; qatqfs decode {one.name}.qatc restores the same bytes from the container alone")
    return containers


def without_mount(session: Session, dumps: list[Dump]) -> dict[str, Path]:
    """Do the same with qatqfs encode and decode; return where each one's container is."""
    total = sum(len(dump.content) for dump in dumps)
    raw, decoded = session.scratch / "raw", session.scratch / "decoded"
    raw.mkdir()
    write_all(dumps, raw)
    names_by_directory: dict[str, list[str]] = defaultdict(list)
    for dump in dumps:
        names_by_directory[os.path.dirname(dump.name)].append(dump.name)

    def convert(verb: str, source: Path, suffix: str, target: Path) -> None:
        for directory, names in names_by_directory.items():
            (target / directory).mkdir(parents=True, exist_ok=True)
            qatqfs(verb, *(source / (name + suffix) for name in names), "--output-dir", target / directory)

    seconds = timed(lambda: convert("encode", raw, "", session.backing))
    say("encode", f"qatqfs encode of {len(dumps)} files: {rate(total, seconds)} with the start of the command")
    containers = {dump.name: session.backing / f"{dump.name}.qatc" for dump in dumps}
    qatqfs("verify", *containers.values())
    say("verify", "qatqfs verify: every checksum right")
    seconds = timed(lambda: convert("decode", session.backing, ".qatc", decoded))
    compare(dumps, lambda dump: (decoded / dump.name).read_bytes(), "what qatqfs decode restores")
    say("decode", f"qatqfs decode, every SHA-256 equal: {rate(total, seconds)} with the start of the command")
    return containers


def run(parent: Path | None, mounted: bool) -> None:
    """Run the whole demo; DemoError if anything is not as it should be."""
    obstacle = fuse_obstacle() if mounted else "--no-mount was given"
    with Session(parent) as session:
        dumps = make_dumps(session)
        if obstacle is None:
            containers = with_mount(session, dumps)
        else:
            left_out = (
                f"{obstacle}. Left out: the mount, and all that is written and read through it. "
                "The same files go through qatqfs encode and decode instead."
            )
            for index, line in enumerate(textwrap.wrap(left_out, 100)):
                say("" if index else "NO MOUNT", line)
            containers = without_mount(session, dumps)
        rows = measure(dumps, containers)
    print()
    print("\n".join(table(rows)))
    print("\nRatios are of the raw size, smaller is better; speeds are this run's, on this machine, once.")
    print("Every byte came back as it was written" + ("." if obstacle is None else ", without a mount."))


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=Path, metavar="DIR", help="put the temporary directory here")
    parser.add_argument("--no-mount", action="store_true", help="encode and decode only, as without /dev/fuse")
    arguments = parser.parse_args()
    return exit_status("demo", lambda: run(arguments.dir, not arguments.no_mount))


if __name__ == "__main__":
    sys.exit(main())
