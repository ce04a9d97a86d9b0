"""Generate with a quarter of the K/V blocks in memory, and the others in a mount whose backing directory is on tmpfs.

This is an experimental compressed tier in main memory, to see how much it holds and what it costs. The same transformer
generates the same text three times: with all blocks in memory, with most of them in plain files on tmpfs, and with most
of them in a mount. Tokens and blocks are compared.

Run it with scripts/paging-demo, which installs what it needs.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from demo_lib.machine import fuse_obstacle
from demo_lib.session import DemoError, Places, exit_status, qatqfs
from demo_lib.transformer import Shape
from serving_lib.jobs import Job, run_job

_REPOSITORY = Path(__file__).resolve().parent.parent
_TEXT = _REPOSITORY / "LICENSE"
_TMPFS = Path("/dev/shm")
_SEED = 2024
_RESIDENT = 4
"""One of this many pages stays in memory."""
_KIB = 1024


@dataclass(frozen=True)
class Scale:
    """How large a run is: the model, tokens in a block, of the prompt and to generate."""

    shape: Shape
    block_tokens: int
    prompt: int
    steps: int


_FULL = Scale(Shape(layers=8, heads=4, kv_heads=2, head_dim=64, hidden=512), 128, 1024, 128)
_QUICK = Scale(Shape(layers=4, heads=4, kv_heads=2, head_dim=64, hidden=512), 64, 256, 64)


@dataclass(frozen=True)
class Result:
    """One way to keep the blocks; its fields are the keys of the JSON output.

    Attributes:
        where: the pages are that are not in memory.
        pages: full ones, each of ``page_bytes``; ``resident`` of them were in memory at most.
        paged_bytes: raw bytes of the others.
        stored_bytes: memory that these take in tmpfs.
        moved_in: pages that were read back.
        moved_out: pages that were written.
        token_s: seconds for each token.
    """

    where: str
    pages: int
    page_bytes: int
    resident: int
    paged_bytes: int
    stored_bytes: int
    moved_in: int
    moved_out: int
    token_s: float


def filesystem_of(path: Path) -> str:
    """Return the type of the filesystem that a path is on."""
    done = subprocess.run(["stat", "-f", "-c", "%T", "--", path], capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        raise DemoError(f"{path}: {done.stderr.strip().rpartition(': ')[2] or 'no such filesystem'}")
    return done.stdout.strip()


def memory_of(directory: Path) -> int:
    """Return the bytes of memory that the files of a directory on tmpfs take."""
    return sum(path.lstat().st_blocks * 512 for path in directory.glob("block-*"))


def result(where: str, outcome: Job, stored: int) -> Result:
    """Return the results of a run."""
    paged = outcome["pages"] - outcome["resident"]
    return Result(
        where=where,
        pages=outcome["pages"],
        page_bytes=outcome["page_bytes"],
        resident=outcome["resident"],
        paged_bytes=paged * outcome["page_bytes"],
        stored_bytes=stored,
        moved_in=outcome["moved_in"],
        moved_out=outcome["moved_out"],
        token_s=outcome["token_s"],
    )


def run(parent: Path, scale: Scale) -> list[Result]:
    """Generate in all three ways; raises DemoError unless the results are equal."""
    obstacle = fuse_obstacle()
    if obstacle is not None:
        raise DemoError(f"this needs a mount, and {obstacle}")
    if (found := filesystem_of(parent)) != "tmpfs":
        raise DemoError(f"{parent} is on {found}, not on tmpfs; give a directory that is with --dir")
    job = {
        "do": "generate",
        "shape": dataclasses.asdict(scale.shape),
        "seed": _SEED,
        "text": str(_TEXT),
        "block_tokens": scale.block_tokens,
        "prompt": scale.prompt,
        "steps": scale.steps,
    }
    unbounded = run_job("paging", job | {"limit": None})
    limit = unbounded["pages"] // _RESIDENT
    with Places(parent) as places:
        plain, backing, mountpoint = (places.directory(name) for name in ("plain", "backing", "mnt"))
        in_files = run_job("paging", job | {"limit": limit, "directory": str(plain), "direct": False})
        # A chunk is a page, so that nothing is decoded in vain; and no decoded copies are kept, which would be memory.
        chunk = f"{unbounded['page_bytes'] // _KIB}K"
        places.mount_at(mountpoint, backing, "--cache-size", "0", "--chunk-size", chunk)
        in_mount = run_job("paging", job | {"limit": limit, "directory": str(mountpoint), "direct": True})
        qatqfs("sync", mountpoint)
        places.unmount_from(mountpoint)
        results = [
            result("memory", unbounded, 0),
            result("tmpfs", in_files, memory_of(plain)),
            result("mount on tmpfs", in_mount, memory_of(backing)),
        ]
    for name, outcome in (("files on tmpfs", in_files), ("the mount", in_mount)):
        if outcome["tokens"] != unbounded["tokens"]:
            raise DemoError(f"with blocks in {name} other tokens came than with all of them in memory")
        if outcome["sums"] != unbounded["sums"]:
            raise DemoError(f"blocks came back from {name} with other bytes")
    return results


def table(results: list[Result]) -> list[str]:
    """Format the results."""
    moves = f"{'moved out':>9} {'moved in':>8} {'a token':>9}"
    lines = [f"{'other blocks in':15} {'resident':>14} {'paged out':>14} {'stored':>10} {'ratio':>6} {moves}"]
    for each in results:
        resident, paged = each.resident * each.page_bytes, each.paged_bytes
        ratio = f"{each.stored_bytes / paged:6.3f}" if paged else f"{'-':>6}"
        lines.append(
            f"{each.where:15} {resident:10,} ({each.resident:2}) {paged:9,} ({each.pages - each.resident:2}) "
            f"{each.stored_bytes:10,} {ratio} {each.moved_out:9,} {each.moved_in:8,} {each.token_s * 1e3:6.1f} ms"
        )
    return lines


def show(results: list[Result], scale: Scale) -> None:
    """Print the table, and what it says."""
    print("\n".join(table(results)))
    last = results[-1]
    print(f"\nBytes (pages) of bf16; a page is what {scale.block_tokens} tokens leave in one layer. stored is the")
    print(
        "memory that the files take in tmpfs. Not counted: the page that is being filled, the one that is being moved,"
    )
    print("and the daemon's own memory.")
    times = last.paged_bytes / last.stored_bytes
    print(f"Every token and every byte is the same. The mount holds {times:.2f} times as many blocks in that memory.")


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="scripts/paging-demo", description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=Path, metavar="DIR", default=_TMPFS, help=f"on a tmpfs; default {_TMPFS}")
    parser.add_argument("--quick", action="store_true", help="a smaller model and a shorter prompt")
    parser.add_argument("--json", action="store_true", help="print a JSON list with an object for each way")
    arguments = parser.parse_args()
    scale = _QUICK if arguments.quick else _FULL

    def work() -> None:
        results = run(arguments.dir, scale)
        if arguments.json:
            print(json.dumps([dataclasses.asdict(each) for each in results], indent=2))
        else:
            show(results, scale)

    return exit_status("paging-demo", work)


if __name__ == "__main__":
    sys.exit(main())
