"""``qatqfs encode``: turn raw files into containers."""

import os
from concurrent.futures import Executor, ThreadPoolExecutor

import click

from qatqfs.cli.contents import CONTAINER_SUFFIX, Source, refuse_mounted_output, total_size
from qatqfs.cli.encoding import write_container
from qatqfs.cli.exits import Refusal, shown
from qatqfs.cli.outcome import Outcome
from qatqfs.cli.outputs import clean_on_signals, output_options, plan, replacing
from qatqfs.cli.progress import Progress
from qatqfs.cli.values import encoding_options, parse_dtype, store_options
from qatqfs.codec import MAX_CHUNKS, DType, Level
from qatqfs.store import StoreOptions
from qatqfs.store.tensors.dtype import choose_dtype, xattr_dtype
from qatqfs.store.tensors.header import read_header


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=click.Path())
@output_options("The container to write, for a single INPUT.", "Write each INPUT foo to foo.qatc in this directory.")
@click.option(
    "--dtype",
    type=parse_dtype,
    metavar="f32|f16|bf16",
    help="Type of the values. Default: from the file's user.qatqfs.dtype attribute, its suffix (.bf16, .f32 ...) or its"
    " header (.safetensors, .npy); else the type that makes samples smallest. A wrong type costs size, never a bit.",
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

    A mount stores the same containers: put one into a backing directory, and the mount shows it decoded. An existing
    output is replaced when the new one is complete. The output gets the input's mode and modification time. The
    input stays as it is.

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
            raise Refusal(f"{shown(source.path)}: was written to while it was being encoded; try again")


def _check_chunk_count(source: Source, chunk_size: int) -> None:
    """Refuse a file that needs more chunks than a container may have, before anything is read or written."""
    chunks = -(-source.size // chunk_size)
    if chunks > MAX_CHUNKS:
        least = 1 << (-(-source.size // MAX_CHUNKS) - 1).bit_length()
        raise Refusal(
            f"{shown(source.path)}: {chunks} chunks of {chunk_size} bytes, but at most {MAX_CHUNKS} are allowed;"
            f" use --chunk-size {max(least // 1024, 1)}K or more"
        )


def _attribute_dtype(path: str) -> DType | None:
    """Return the dtype attribute of a file, or of the nearest directory above it that has one."""
    path = os.path.abspath(path)
    while (found := xattr_dtype(path)) is None and path != "/":
        path = os.path.dirname(path)
    return found
