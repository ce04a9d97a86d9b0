"""``qatqfs encode``: raw files to containers."""

import os
from concurrent.futures import Executor, ThreadPoolExecutor

import click

from qatqfs.cli.contents import CONTAINER_SUFFIX, Source, refuse_mounted_output, total_size
from qatqfs.cli.encoding import write_container
from qatqfs.cli.exits import Refusal, shown
from qatqfs.cli.outcome import Outcome
from qatqfs.cli.outputs import clean_on_signals, plan, replacing
from qatqfs.cli.progress import Progress
from qatqfs.cli.values import encoding_options, parse_dtype, store_options
from qatqfs.codec import MAX_CHUNKS, DType, Level
from qatqfs.store import StoreOptions
from qatqfs.store.tensors.dtype import choose_dtype, xattr_dtype
from qatqfs.store.tensors.header import read_header


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
    for place in filter(None, (output, output_dir)):
        refuse_mounted_output(place)
    with (
        clean_on_signals(),
        Progress(total_size(inputs), "encoding", files=len(jobs)) as progress,
        ThreadPoolExecutor(workers, thread_name_prefix="qatqfs-encode") as executor,
    ):
        for path, target in jobs:
            progress.begin(path)
            with outcome.of(path), Source(path) as source:
                _encode(source, target, dtype, options, executor, progress)
    return outcome.status


def _encode(
    source: Source, target: str, wanted: DType | None, options: StoreOptions, executor: Executor, progress: Progress
) -> None:
    _check_chunk_count(source, options.chunk_size)
    explicit = wanted or _attribute_dtype(source.path)
    header = read_header(source.size, source.read_at)
    dtype = choose_dtype(os.fsencode(source.path), source.size, source.read_at, explicit=explicit, header=header)
    with replacing(target, source.stat) as fd:
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
        if source.changed():
            raise Refusal(f"{shown(source.path)}: was written while it was being encoded")


def _check_chunk_count(source: Source, chunk_size: int) -> None:
    """Refuse what would become more chunks than a container may have, before anything is read or written."""
    chunks = -(-source.size // chunk_size)
    if chunks > MAX_CHUNKS:
        least = 1 << (-(-source.size // MAX_CHUNKS) - 1).bit_length()
        raise Refusal(
            f"{shown(source.path)}: {chunks} chunks of {chunk_size} bytes, and a container has {MAX_CHUNKS} at most;"
            f" use --chunk-size {max(least // 1024, 1)}K or more"
        )


def _attribute_dtype(path: str) -> DType | None:
    """Return what the dtype attribute of a file or the nearest directory above it says."""
    path = os.path.abspath(path)
    while (found := xattr_dtype(path)) is None and path != "/":
        path = os.path.dirname(path)
    return found
