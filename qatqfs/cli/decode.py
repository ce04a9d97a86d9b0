"""``qatqfs decode``: turn containers and bare payloads into raw files."""

import os
from concurrent.futures import Executor, ThreadPoolExecutor

import click

from qatqfs.cli.contents import CONTAINER_SUFFIX, PAYLOAD_SUFFIX, Source, Storage, total_size
from qatqfs.cli.decoding import decoded_chunks
from qatqfs.cli.exits import Refusal, shown
from qatqfs.cli.outcome import Outcome
from qatqfs.cli.outputs import clean_on_signals, output_options, plan, replacing
from qatqfs.cli.progress import Progress
from qatqfs.cli.values import DEFAULTS
from qatqfs.codec import FileSink, decode_any_payload


def _output_name(path: str) -> str:
    """Return a path's last name without .qatc or .qatq; raises Refusal if it has neither suffix."""
    name = os.path.basename(path)
    for suffix in (CONTAINER_SUFFIX, PAYLOAD_SUFFIX):
        if name.endswith(suffix) and name != suffix:
            return name.removesuffix(suffix)
    raise Refusal(f"{shown(path)}: does not end in .qatc or .qatq; name its output with -o")


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=click.Path())
@output_options(
    "The file to write, for a single INPUT.", "Write each INPUT foo.qatc or foo.qatq to foo in this directory."
)
def command(inputs: tuple[str, ...], output: str | None, output_dir: str | None) -> int:
    """Decode QATC v2 containers and bare QATQ payloads, from any encoder, to raw files.

    Every checksum is verified. For a damaged INPUT no file is written: one line names it, the other inputs are still
    decoded, and the exit status is 1. A mount can still read the undamaged chunks of a container. An existing output
    is replaced when the new one is complete. The output gets the input's mode and modification time. The input stays
    as it is.

    \b
    Examples:
      qatqfs decode kv.bf16.qatc -o kv.bf16
      qatqfs decode backing/*.qatc --output-dir restored
    """
    outcome = Outcome()
    jobs = plan(inputs, output, output_dir, _output_name, outcome)
    with (
        clean_on_signals(),
        Progress(total_size(inputs), "decoding", files=len(jobs)) as progress,
        ThreadPoolExecutor(DEFAULTS.workers, thread_name_prefix="qatqfs-decode") as executor,
    ):
        for path, target in jobs:
            progress.begin(path)
            with outcome.of(path), Source(path) as source:
                _decode(source, target, executor, progress)
    return outcome.status


def _decode(source: Source, target: str, executor: Executor, progress: Progress) -> None:
    with replacing(target, source.stat) as fd:
        sink = FileSink(fd)
        if source.storage() is Storage.CONTAINER:
            chunks = decoded_chunks(
                source.read_at,
                source.size,
                executor=executor,
                window=DEFAULTS.workers + 2,
                progress=progress.advance,
            )
            for chunk in chunks:
                sink.write(chunk)
        else:
            sink.write(decode_any_payload(source.read_payload())[0])
            progress.advance(source.size)
        if source.changed():
            raise Refusal(f"{shown(source.path)}: was written to while it was being decoded; try again")
