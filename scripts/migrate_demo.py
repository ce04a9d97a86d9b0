"""Move a running sequence to another machine and back: only its containers travel.

A small transformer serves a prompt and writes its K/V blocks through a mount. The containers are copied to a second
directory, as in a migration, and mounted there read-only. A fresh process continues from them. Its output is compared
with that of the first process, which never stopped. Then the sequence moves back in the same way.

Run it with scripts/migrate-demo, which installs what it needs.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from demo_lib.machine import drop_caches, fuse_obstacle
from demo_lib.session import DemoError, Places, exit_status, qatqfs
from demo_lib.transformer import Shape
from serving_lib.blocks import KINDS, Kind
from serving_lib.jobs import Job, run_job
from serving_lib.sizes import Sizes, measure

_REPOSITORY = Path(__file__).resolve().parent.parent
_TEXT = _REPOSITORY / "LICENSE"
_SEED = 2024
_LENGTHS = (16, 32, 64, 128)
"""Tokens after which the continuations are compared."""
_BACK_AFTER = 64
"""Tokens that are generated away before the sequence goes back."""


@dataclass(frozen=True)
class Scale:
    """How large a run is.

    Attributes:
        shape: of the model.
        prompt: its tokens.
        before: tokens that are generated before the sequence moves.
        block_tokens: tokens in a block.
        cold: whether to empty the page cache of the whole machine before the blocks are read.
    """

    shape: Shape
    prompt: int
    before: int
    block_tokens: int
    cold: bool


_FULL = Scale(Shape(layers=24, heads=4, kv_heads=2, head_dim=64, hidden=512), 2016, 33, 256, cold=True)
"""2,048 tokens: 50,331,648 bytes of f32, as in the reference's own run."""
_QUICK = Scale(Shape(layers=3, heads=4, kv_heads=2, head_dim=64, hidden=512), 216, 21, 64, cold=False)


@dataclass(frozen=True)
class Result:
    """The results for one kind of cache; its fields are the keys of the JSON output."""

    kind: str
    files: int
    raw_bytes: int
    shipped_bytes: int
    planes_zstd_bytes: int
    zstd_bytes: int
    lz4_bytes: int
    prefill_s: float
    read_s: float
    first_token_s: float
    equal_after: list[int]


def containers(directory: Path) -> list[Path]:
    """Return the containers in a backing directory, which are all that travels."""
    return sorted(directory.glob("*.qatc"))


def ship(source: Path, target: Path) -> int:
    """Copy the containers of a backing directory into another; return the bytes of the containers of blocks."""
    total = 0
    for path in containers(source):
        shutil.copy2(path, target / path.name)
        total += path.stat().st_size if path.name.startswith("block-") else 0
    return total


def compare(got: list[int], wanted: list[int], what: str) -> None:
    """Compare tokens that were generated elsewhere with the expected ones; raises DemoError."""
    if got != wanted:
        pairs = zip(got, wanted, strict=False)
        equal = next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(got), len(wanted)))
        raise DemoError(f"{what}: the tokens differ after {equal} equal ones")


def migrate(places: Places, kind: Kind, scale: Scale) -> Result:
    """Take a sequence there and back; raises DemoError if anything is wrong."""
    name = kind.name.replace(" ", "-")
    home, away, made = (places.directory(f"{name}/{where}") for where in ("home", "away", "made"))
    mountpoint, second = places.directory(f"{name}/mnt"), places.directory(f"{name}/mnt-made")
    common = {
        "shape": dataclasses.asdict(scale.shape),
        "seed": _SEED,
        "kind": kind.name,
        "block_tokens": scale.block_tokens,
        "directory": str(mountpoint),
        "after": _LENGTHS[-1],
    }
    serving = {"do": "serve", "text": str(_TEXT), "prompt": scale.prompt, "before": scale.before}

    with mounted(places, mountpoint, home):
        served = run_job("worker", common | serving)
    shipped = ship(home, away)
    if scale.cold:
        drop_caches()
    with mounted(places, mountpoint, away, "--read-only"), mounted(places, second, made):
        gone_on = run_job("worker", common | {"do": "resume", "target": str(second), "before": _BACK_AFTER})
        contents = {path.name: path.read_bytes() for path in sorted(mountpoint.glob("block-*"))}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    if not served["sums"] == gone_on["sums"] == sums:
        raise DemoError(f"{kind.name}: blocks away differ from those at home")
    compare(gone_on["tokens"], served["tokens"], f"{kind.name}: away")
    qatqfs("verify", away)

    ship(made, home)
    with mounted(places, mountpoint, home, "--read-only"):
        back = run_job("worker", common | {"do": "resume", "target": None, "after": _LENGTHS[-1] - _BACK_AFTER})
    compare(back["tokens"], served["tokens"][_BACK_AFTER:], f"{kind.name}: back home")
    sizes = measure(contents.values(), np.dtype(kind.stored).itemsize)
    return _result(kind, len(contents), sizes, shipped, served, gone_on)


@contextlib.contextmanager
def mounted(places: Places, mountpoint: Path, backing: Path, *options: str) -> Iterator[None]:
    """Mount while the body of the ``with`` statement runs; after an error, the places unmount."""
    places.mount_at(mountpoint, backing, *options)
    yield
    places.unmount_from(mountpoint)


def _result(kind: Kind, files: int, sizes: Sizes, shipped: int, served: Job, gone_on: Job) -> Result:
    return Result(
        kind=kind.name,
        files=files,
        raw_bytes=sizes.raw,
        shipped_bytes=shipped,
        planes_zstd_bytes=sizes.planes,
        zstd_bytes=sizes.zstd,
        lz4_bytes=sizes.lz4,
        prefill_s=served["first_token_s"],
        read_s=gone_on["read_s"],
        first_token_s=gone_on["first_token_s"],
        equal_after=[count for count in _LENGTHS if gone_on["tokens"][:count] == served["tokens"][:count]],
    )


def table(results: list[Result]) -> list[str]:
    """Format the results."""
    names = " ".join(f"{name:>6}" for name in ("ratio", "planes", "zstd-3", "lz4"))
    times = f"{'prefill':>8} {'read':>7} {'first':>7}"
    lines = [f"{'cache':12} {'files':>5} {'raw bytes':>11} {'shipped':>11} {names} {times}  equal after"]
    for each in results:
        sizes = (each.shipped_bytes, each.planes_zstd_bytes, each.zstd_bytes, each.lz4_bytes)
        ratios = " ".join(f"{size / each.raw_bytes:6.3f}" for size in sizes)
        times = f"{each.prefill_s:6.2f} s {each.read_s:5.2f} s {each.first_token_s:5.2f} s"
        lines.append(
            f"{each.kind:12} {each.files:5} {each.raw_bytes:11,} {each.shipped_bytes:11,} {ratios} {times}  "
            + ", ".join(map(str, each.equal_after))
        )
    return lines


_LEGEND = """
Ratios are of the raw bytes: shipped are the containers of the blocks; planes is one zstd frame at level 3 over the byte
planes of 32,768 values at a time, as in the reference's own run; zstd-3 and lz4 take each file as it is. prefill is the
time to the first token at home; read and first are those of the fresh process away: until all blocks are read through
the mount and verified, and until the first token.
"""


def run(parent: Path | None, scale: Scale, as_json: bool) -> None:
    """Run all kinds of caches."""
    obstacle = fuse_obstacle()
    if obstacle is not None:
        raise DemoError(f"this needs a mount, and {obstacle}")
    results = []
    with Places(parent) as places:
        for kind in KINDS.values():
            if sys.stderr.isatty():
                print(f"{kind.name}: there and back ...", file=sys.stderr, flush=True)
            results.append(migrate(places, kind, scale))
    if as_json:
        print(json.dumps([dataclasses.asdict(each) for each in results], indent=2))
        return
    print("\n".join(table(results)))
    print(_LEGEND)
    there, back = _LENGTHS[-1], _LENGTHS[-1] - _BACK_AFTER
    print(f"Every byte arrived as it was written. The {there} tokens that were generated away are those of the run")
    print(
        f"that never stopped; so are the {back} that were generated at home again, after the first {_BACK_AFTER} away."
    )


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="scripts/migrate-demo", description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=Path, metavar="DIR", help="put the temporary directory here")
    parser.add_argument("--quick", action="store_true", help="a smaller model and a shorter prompt")
    parser.add_argument("--json", action="store_true", help="print a JSON list with an object for each kind of cache")
    arguments = parser.parse_args()
    return exit_status("migrate-demo", lambda: run(arguments.dir, _QUICK if arguments.quick else _FULL, arguments.json))


if __name__ == "__main__":
    sys.exit(main())
