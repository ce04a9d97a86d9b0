"""The ``qatqfs`` command: find the verb, run it, and turn every error into one line and an exit status."""

import importlib
import os
import sys
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem, shell_complete

from qatqfs.cli.descriptors import fill_standard_descriptors
from qatqfs.cli.exits import DONE, INTERRUPTED, OUTPUT_CLOSED, REFUSED, Refusal, complain, describe
from qatqfs.cli.memory import keep_freed_memory
from qatqfs.cli.streams import OutputFailed, set_up_streams, written_out
from qatqfs.mount.errors import MountError
from qatqfs.store.errors import StoreError

_VERBS = {
    "mount": "Mount a backing directory, with its files decoded.",
    "umount": "Unmount, and wait until everything is committed.",
    "sync": "Commit what was written, and wait until it is durable.",
    "encode": "Encode raw files as containers: foo becomes foo.qatc.",
    "decode": "Decode containers to raw files: foo.qatc becomes foo.",
    "estimate": "Estimate how small raw files would become.",
    "info": "Show sizes, ratio, dtype, chunks and strategies.",
    "verify": "Check every checksum.",
    "stats": "Show the counters of a running mount.",
}
"""What each verb does. It is said here so that the help text need not import all verbs."""
_NAME = "qatqfs"
_COMPLETION_VARIABLE = "_QATQFS_COMPLETE"  # the name that click's completion scripts use
_TRACEBACK_VARIABLE = "QATQFS_TRACEBACK"


class _Verbs(click.Group):
    """The verbs, each imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the help text."""
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a verb, ``None`` if there is none of this name."""
        if cmd_name not in _VERBS:
            return None
        command: click.Command = importlib.import_module(f"qatqfs.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs into the help text."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the verbs and options that begin with an incomplete word."""
        verbs = [CompletionItem(verb, help=text) for verb, text in _VERBS.items() if verb.startswith(incomplete)]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Treat ``BACKING MOUNTPOINT -o ...`` as a mount, because mount.fuse3(8) calls the command so."""
        if args and _is_place(args[0]):
            args = ["mount", *args]
        return super().parse_args(ctx, args)


def _is_place(word: str) -> bool:
    return word not in _VERBS and not word.startswith("-") and ("/" in word or os.path.isdir(word))


@click.group(
    cls=_Verbs,
    no_args_is_help=False,  # no arguments are wrong usage, which is one line
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name=_NAME, prog_name=_NAME, message="%(prog)s %(version)s")
def cli() -> None:
    """Store LLM tensor dumps (KV caches, weights) compressed, without losing a bit.

    "qatqfs mount" shows a directory of compressed files as raw files, which unchanged programs read and write. The
    other commands work on files without a mount, or talk to a running mount. Each command has a --help with examples.

    Exit status: 0 success, 1 damaged or unknown data, 2 wrong usage, a refusal, or a system error.
    """


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status; an error is one line on standard error."""
    try:
        with written_out():
            return _execute(list(arguments))
    except KeyboardInterrupt:
        return INTERRUPTED
    except OutputFailed as err:
        if err.status != OUTPUT_CLOSED:  # the reader who closed it expects no message
            complain(describe(err))
        return err.status
    except click.ClickException as err:
        complain(_usage_text(err))
        return REFUSED
    except Exception as err:
        complain(_failure_text(err))
        return REFUSED


def _execute(arguments: list[str]) -> int:
    """Run the command. Click's own main() is not used, because it handles Ctrl-C and EPIPE differently."""
    instruction = os.environ.get(_COMPLETION_VARIABLE)
    if instruction:
        try:
            return shell_complete(cli, {}, _NAME, _COMPLETION_VARIABLE, instruction)
        except OSError as err:  # it only prints, and does not use sys.stdout
            raise OutputFailed(err) from err
    try:
        with cli.make_context(_NAME, arguments) as context:
            status = cli.invoke(context)
    except click.exceptions.Exit as done:  # --help and --version
        status = done.exit_code
    return status if isinstance(status, int) else DONE


def _usage_text(error: click.ClickException) -> str:
    text = describe(Exception(error.format_message())).rstrip(".")
    text = text[:1].lower() + text[1:]
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{text} (see {context.command_path} --help)" if context is not None else text


def _failure_text(error: Exception) -> str:
    if isinstance(error, OSError | Refusal | MountError | StoreError):
        return describe(error)
    if isinstance(error, MemoryError):
        return "out of memory"
    if os.environ.get(_TRACEBACK_VARIABLE):
        raise error
    hint = f"internal error, please report it ({_TRACEBACK_VARIABLE}=1 shows where)"
    return f"{hint}: {type(error).__name__}: {describe(error)}"


def main() -> None:
    """Entry point of the console script."""
    fill_standard_descriptors()
    keep_freed_memory()
    set_up_streams()
    sys.exit(run(sys.argv[1:]))
