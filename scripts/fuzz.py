"""Fuzz the codec's parsers; run it with scripts/fuzz, which installs what it needs.

Without atheris, inputs are random changes of known inputs. With it (pip install atheris), the lines that an input
reaches guide the search, and inputs that reach new lines are kept in --corpus DIR/TARGET.
"""

import argparse
import hashlib
import importlib.util
import random
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from fuzz_lib.corpus import seeds
from fuzz_lib.mutate import mutated
from fuzz_lib.targets import TARGETS, Target

_MAX_INPUT_BYTES = 8192
_REPORT_EVERY_S = 10.0


def run_plain(name: str, target: Target, seconds: float, seed: int) -> int:
    """Feed random changes of known inputs for some seconds; if one does harm, keep it in a file and return 1."""
    rng = random.Random(seed)
    corpus = [data for data in seeds(name) if len(data) <= _MAX_INPUT_BYTES]
    start = said = time.monotonic()
    count = 0
    while (now := time.monotonic()) < start + seconds:
        data = mutated(rng, corpus)
        if rng.random() < 0.5:
            data = target.repair(data)
        try:
            target.check(data)
        except Exception:
            traceback.print_exc()
            found = Path(f"harm-{name}-{hashlib.sha256(data).hexdigest()[:12]}")
            found.write_bytes(data)
            print(f"fuzz: {name}: input {count} of seed {seed} does harm; it is in {found}", file=sys.stderr)
            return 1
        count += 1
        if now > said + _REPORT_EVERY_S:
            said = now
            print(f"fuzz: {name}: {count:,} inputs, no harm", flush=True)
    print(f"fuzz: {name}: {count:,} inputs from {len(corpus)} known ones, no harm")
    return 0


def run_guided(name: str, seconds: float, seed: int, corpus: Path | None) -> int:
    """Run atheris in its own process, which its instrumentation needs, and return the exit status."""
    with tempfile.TemporaryDirectory(prefix="qatqfs-fuzz-") as temporary:
        known = Path(temporary) / "seeds"
        known.mkdir()
        for data in seeds(name):
            (known / hashlib.sha256(data).hexdigest()).write_bytes(data)
        kept = corpus / name if corpus is not None else Path(temporary) / "kept"
        kept.mkdir(parents=True, exist_ok=True)
        options = [
            f"-max_total_time={seconds:.0f}",
            f"-seed={seed}",
            f"-max_len={_MAX_INPUT_BYTES}",
            "-print_final_stats=1",
        ]
        command = [sys.executable, __file__, "--guided", name, *options, str(kept), str(known)]
        return subprocess.run(command, check=False).returncode


def guided(name: str, arguments: list[str]) -> None:
    """Be the process that atheris runs in; never returns."""
    import atheris

    for module in [module for module in sys.modules if module.startswith(("qatqfs", "fuzz_lib"))]:
        del sys.modules[module]
    with atheris.instrument_imports(include=["qatqfs.codec"]):
        from fuzz_lib.targets import TARGETS as INSTRUMENTED
    target = INSTRUMENTED[name]

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        changed = bytes(atheris.Mutate(data, max_size))
        return target.repair(changed)[:max_size] if seed & 1 else changed

    atheris.Setup(["fuzz", *arguments], target.check, custom_mutator=mutate)
    atheris.Fuzz()


def main() -> int:
    """Parse the arguments and fuzz one target after another."""
    if sys.argv[1:2] == ["--guided"]:
        guided(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__.splitlines()[0])
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"one or more of {', '.join(TARGETS)}; default all"
    )
    parser.add_argument("--seconds", type=float, default=60, help="for each target (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="of all random choices (default: 1)")
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="keep new inputs here (with atheris)")
    parser.add_argument("--plain", action="store_true", help="random changes only, even where atheris is installed")
    options = parser.parse_args()
    unknown = set(options.targets) - set(TARGETS)
    if unknown:
        parser.error(f"unknown target {min(unknown)!r}")
    has_engine = importlib.util.find_spec("atheris") is not None and not options.plain
    status = 0
    for name in options.targets or TARGETS:
        if has_engine:
            status |= run_guided(name, options.seconds, options.seed, options.corpus)
        else:
            status |= run_plain(name, TARGETS[name], options.seconds, options.seed)
    return min(status, 1)


if __name__ == "__main__":
    sys.exit(main())
