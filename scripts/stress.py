"""Random operations from several processes on a mount and on a plain directory side by side; run by scripts/stress.

Results, errnos and contents must be equal. With --kill the daemon is killed now and then. Everything that it had
acknowledged must then exist after the next mount under its name, also if sync(1) has run meanwhile. After a reboot it
may be in lost+found instead, and the log must say so. The script prints the seed. After a failure it also prints a
short trace of operations that still fails, if it finds one.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from stress_lib import session


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/stress", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long to work (default: 60)")
    parser.add_argument("--seed", type=int, help="the same seed does the same operations (default: a random one)")
    parser.add_argument("--workers", type=int, default=3, help="processes (default: 3)")
    parser.add_argument("--kill", action="store_true", help="kill the daemon now and then")
    parser.add_argument("--dir", type=Path, help="where to make a temporary directory (default: the system's)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="shrink a trace that an earlier run has saved")
    return parser.parse_args()


def _print_trace(trace: session.Trace) -> None:
    print(f"a trace of {len(trace)} operations that fails on a fresh mount:")
    for operation in trace:
        print(f"  {json.dumps(operation)}")


def _replay(base: Path, file: Path) -> int:
    trace = session.minimal(base, json.loads(file.read_text()))
    if trace is None:
        print("the trace does not fail on a fresh mount")
        return 0
    _print_trace(trace)
    return 1


def _run(base: Path, options: argparse.Namespace, seed: int) -> int:
    print(f"seed {seed}", flush=True)
    result = session.run(base, seed=seed, seconds=options.seconds, workers=options.workers, kill=options.kill)
    print(
        f"{result.operations} operations, {result.kills} kills ({result.interrupted} operations interrupted),"
        f" {result.reboots} of them before a reboot ({result.lost} contents in lost+found),"
        f" {result.directories} directories compared"
    )
    for failure in result.failures:
        print(f"FAILED (seed {seed}): {failure}")
    if result.trace is not None:
        _print_trace(result.trace)
    return 1 if result.failures else 0


def _remove(base: Path) -> None:
    """Remove a directory with all below it, also what an ordinary user may not enter yet."""
    for above, directories, _ in os.walk(base):
        for path in (Path(above, name) for name in directories):
            if not path.is_symlink():
                path.chmod(0o700)
    shutil.rmtree(base)


def main() -> int:
    options = _arguments()
    base = Path(tempfile.mkdtemp(prefix="qatqfs-stress-", dir=options.dir))
    status = 1
    try:
        if options.replay is not None:
            status = _replay(base, options.replay)
        else:
            status = _run(base, options, options.seed if options.seed is not None else random.randrange(1 << 32))
    finally:
        if status:
            print(f"what is left of it is in {base}")
        else:
            _remove(base)
    return status


if __name__ == "__main__":
    sys.exit(main())
