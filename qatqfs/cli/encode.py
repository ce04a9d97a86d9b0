"""``qatqfs encode``: raw files to containers."""

import os
from concurrent.futures import Executor, ThreadPoolExecutor

import click

from qatqfs.cli.contents import CONTAINER_SUFFIX, Source, total_size
from qatqfs.cli.exits import Refusal, shown
from qatqfs.cli.outcome import Outcome
from qatqfs.cli.outputs import clean_on_signals, plan, replacing
from qatqfs.cli.progress import Progress
from qatqfs.cli.values import encoding_options, parse_dtype, store_options
from qatqfs.codec import DType, Level, LimitExceeded
from qatqfs.store import StoreOptions
from qatqfs.store.dtypechoice import choose_dtype, xattr_dtype
from qatqfs.store.encoder import write_container
from qatqfs.store.tensorheader import read_header


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=click.Path())
@click.option("-o", "--output", metavar="OUT", type=click.Path(), help="The container to write; for a single INPUT.")
@click.option(
    "--output-dir",
    metavar="DIR",
    type=click.Path(),
    help="Write foo.qatc into this directory for every INPUT foo.",
)
@click.option(
    "--dtype",
    type=parse_dtype,
    metavar="f32|f16|bf16",
    help="Type of the values. Without it: the file's user.qatqfs.dtype attribute, its suffix (.bf16, .f32 ...), its"
    " header (.safetensors, .npy), or whatever makes samples of it smallest. A wrong one costs size, never a bit.",
)
@encoding_options
def command(
    inputs: tuple[str, ...],
    output: str | None,
    output_dir: str | None,
    dtype: DType | None,
    chunk_size: int,
    level: str,
    workers: int,
) -> int:
    """Encode raw tensor files as QATC v2 containers, without losing a bit.

    The same containers as those that a mount stores: put one into a backing directory and it shows up decoded.
    An existing output is replaced, once the new one is complete. Mode and modification time are kept, and the
    input stays.

    \b
    Examples:
      qatqfs encode kv.bf16 -o kv.bf16.qatc
      qatqfs encode dumps/*.bin --output-dir backing --dtype bf16 --level small
    """
    options = store_options(chunk_size=chunk_size, level=Level.parse(level), workers=workers)
    outcome = Outcome()
    jobs = plan(inputs, output, output_dir, lambda path: os.path.basename(path) + CONTAINER_SUFFIX, outcome)
    with (
        clean_on_signals(),
        Progress(total_size(inputs), "encoding") as progress,
        ThreadPoolExecutor(workers, thread_name_prefix="qatqfs-encode") as executor,
    ):
        for path, target in jobs:
            with outcome.of(path), Source(path) as source:
                _encode(source, target, dtype, options, executor, progress)
    return outcome.status


def _encode(
    source: Source, target: str, wanted: DType | None, options: StoreOptions, executor: Executor, progress: Progress
) -> None:
    explicit = wanted or _attribute_dtype(source.path)
    header = read_header(source.size, source.read_at)
    dtype = choose_dtype(os.fsencode(source.path), source.size, source.read_at, explicit=explicit, header=header)
    with replacing(target, source.stat) as fd:
        try:
            write_container(
                fd,
                source.read_at,
                source.size,
                dtype,
                header=header,
                chunk_size=options.chunk_size,
                level=options.level,
                executor=executor,
                workers=options.workers,
                progress=progress.advance,
            )
        except LimitExceeded as err:  # a fault of the settings, not of the data
            raise Refusal(f"{shown(source.path)}: {err}; use a larger --chunk-size") from err
        if source.changed():
            raise Refusal(f"{shown(source.path)}: was written while it was being encoded")


def _attribute_dtype(path: str) -> DType | None:
    """Return what the dtype attribute of a file or the nearest directory above it says."""
    path = os.path.abspath(path)
    while (found := xattr_dtype(path)) is None and path != "/":
        path = os.path.dirname(path)
    return found
