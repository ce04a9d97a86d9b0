"""``qatqfs mount``: mount a backing directory. A line of fstab runs it as ``qatqfs BACKING MNT -o ...``."""

from typing import Any

import click

from qatqfs.cli import fstab
from qatqfs.cli.exits import DONE, complain
from qatqfs.cli.values import DEFAULTS, dtype_rules_option, encoding_options, parse_size, size_text, store_options
from qatqfs.codec import Level
from qatqfs.mount import MountOptions, mount
from qatqfs.mount.remounting import remount
from qatqfs.store import OnCorrupt

_NOT_FOR_FSTAB = frozenset({"foreground", "fstab_texts"})


@click.command()
@click.argument("backing", type=click.Path())
@click.argument("mountpoint", type=click.Path())
@click.option(
    "--cache-size",
    type=parse_size,
    metavar="SIZE",
    default=size_text(DEFAULTS.cache_size),
    show_default=True,
    help="Memory for the cache of decoded chunks.",
)
@encoding_options
@dtype_rules_option(
    "Type of the values in files that match a shell pattern, for example '*.bin=bf16'. May be repeated; the first"
    " match counts. A pattern without / is compared with the file's name, any other with its path in the mount. The"
    " file's name when it is committed counts, so give the final name: runtimes write to a temporary name (vLLM"
    " x.bin_3.tmp, SGLang x.bin.UUID.tmp, LMCache x.tmp, huggingface_hub x.incomplete) and rename. Without a rule the"
    " suffix, the header or the data decides."
)
@click.option(
    "--raw",
    "raw_patterns",
    metavar="PATTERN",
    multiple=True,
    help="Store files that match this pattern (as for --dtype) as they are: not compressed, without checksums. A file"
    " that is created or committed under such a name becomes raw. What is stored already stays as it is: a container"
    " until it is written to, a raw file until it is emptied and rewritten. May be repeated.",
)
@click.option("--read-only", is_flag=True, help="Write nothing. Any number of read-only mounts may share a BACKING.")
@click.option("--allow-other", is_flag=True, help="Let other users in, with the usual permissions. For root only.")
@click.option(
    "--commit-on-close",
    is_flag=True,
    help="Let close(2) of a written file wait until the file is in a container. For programs that read BACKING itself.",
)
@click.option(
    "--durable-after",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    default=DEFAULTS.durable_after,
    show_default=True,
    help="Make written data durable (it survives a loss of power) after about this many seconds, even if no program"
    " calls fsync. No program waits for it. 0 leaves it to the operating system.",
)
@click.option(
    "--on-corrupt",
    type=click.Choice([choice.value for choice in OnCorrupt]),
    default=DEFAULTS.on_corrupt.value,
    show_default=True,
    help="How a file known to be damaged behaves. eio: reads of damaged chunks fail with an I/O error, all others"
    " succeed. enoent: the file is hidden, which inference runtimes take as a cache miss.",
)
@click.option(
    "--log-file",
    metavar="FILE",
    type=click.Path(),
    help="File that the daemon logs to. Default: .qatqfs/log in BACKING; with --read-only the system log, or a file in"
    " ~/.local/state/qatqfs if there is none.",
)
@click.option("--debug", is_flag=True, help="Log more details.")
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground and log to standard error.")
@click.option(
    "-o",
    "fstab_texts",
    metavar="OPTION[,...]",
    multiple=True,
    help="Options as in fstab, for example cache_size=1G,ro,level=small, and those of mount(8). nonempty allows a"
    " MOUNTPOINT that is not empty; the mount hides what is in it. remount,ro and remount,rw change a running mount;"
    " the options listed above do not change then.",
)
@click.pass_context
def command(ctx: click.Context, /, backing: str, mountpoint: str, **given: Any) -> int:
    """Mount BACKING, a directory of compressed tensor files, at MOUNTPOINT, and show its files decoded.

    Files written below MOUNTPOINT are stored in BACKING as QATC containers, compressed without loss and with
    checksums. A read decodes only the chunks that it touches. The command returns when the mount is ready. A daemon
    serves the mount until "qatqfs umount MOUNTPOINT" or a signal such as TERM or HUP ends it; each of these commits
    everything first. Only one mount at a time may write to a BACKING. MOUNTPOINT must be an empty directory.

    \b
    Examples:
      qatqfs mount /data/kv.store /data/kv
      qatqfs mount --dtype '*.bin=bf16' --cache-size 2G /data/kv.store /data/kv
    \b
    In /etc/fstab:
      /data/kv.store  /data/kv  fuse.qatqfs  level=fast,nofail,allow_other  0 0
    """
    texts, foreground = given.pop("fstab_texts"), given.pop("foreground")
    options = fstab.parse(texts, _own_options(ctx), ctx)
    settings = fstab.merge(given, options, ctx)
    if options.remount is not None:
        remount(backing, mountpoint, options.remount)
        return DONE
    outside_store = {name: settings.pop(name) for name in ("allow_other", "log_file", "debug")}
    settings["level"] = Level.parse(settings["level"])
    settings["on_corrupt"] = OnCorrupt(settings["on_corrupt"])
    mount(
        MountOptions(
            backing=backing,
            mountpoint=mountpoint,
            store=store_options(**settings),
            foreground=foreground,
            fuse_options=tuple(options.fuse),
            nonempty=options.nonempty,
            **outside_store,
        ),
        complain,
    )
    return DONE


def _own_options(ctx: click.Context) -> dict[str, click.Option]:
    """Return the options that ``-o`` accepts, by their names without dashes."""
    found = {}
    for parameter in ctx.command.params:
        if isinstance(parameter, click.Option) and parameter.name not in _NOT_FOR_FSTAB:
            found[parameter.opts[-1].removeprefix("--").replace("-", "_")] = parameter
    return found
