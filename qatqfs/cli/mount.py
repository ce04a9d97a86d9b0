"""``qatqfs mount``: show a backing directory decoded; also what fstab's ``qatqfs BACKING MNT -o ...`` comes to."""

from typing import Any

import click

from qatqfs.cli import fstab
from qatqfs.cli.exits import DONE, complain
from qatqfs.cli.values import DEFAULTS, encoding_options, parse_dtype_rule, parse_size, size_text, store_options
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
    help="Memory for decoded chunks.",
)
@encoding_options
@click.option(
    "--dtype",
    "dtype_rules",
    type=parse_dtype_rule,
    metavar="PATTERN=f32|f16|bf16",
    multiple=True,
    help="Type of the values in files that a shell pattern fits, for example '*.bin=bf16'. May be repeated, the first"
    " that fits counts. A pattern without / is compared with the file's name, any other with its path in the mount."
    " The name that counts is the one that a file has when it is committed: runtimes write a temporary name (vLLM"
    " x.bin_3.tmp, SGLang x.bin.UUID.tmp, LMCache x.tmp, huggingface_hub x.incomplete) and rename, so give the final"
    " one. Without a rule the suffix, the header or the data itself decides.",
)
@click.option(
    "--raw",
    "raw_patterns",
    metavar="PATTERN",
    multiple=True,
    help="Store files that this pattern fits, as for --dtype, as they are: not compressed, without checksum. A file"
    " that is made or committed under such a name becomes raw; what is stored already stays as it is until it is"
    " written to (a container) or emptied and rewritten (a raw file). May be repeated.",
)
@click.option("--read-only", is_flag=True, help="Write nothing at all. Any number of these may share a BACKING.")
@click.option("--allow-other", is_flag=True, help="Let other users in, with the usual permissions. For root only.")
@click.option(
    "--commit-on-close",
    is_flag=True,
    help="Let close(2) of a written file wait until it is in a container, for those who read BACKING directly.",
)
@click.option(
    "--durable-after",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    default=DEFAULTS.durable_after,
    show_default=True,
    help="Let what was written survive a loss of power after about so many seconds even if no program calls fsync; 0"
    " leaves that to the system. No program waits for it.",
)
@click.option(
    "--on-corrupt",
    type=click.Choice([choice.value for choice in OnCorrupt]),
    default=DEFAULTS.on_corrupt.value,
    show_default=True,
    help="What a file known to be damaged is like: readable where it is sound and an I/O error elsewhere (eio), or"
    " absent (enoent), which inference runtimes take as a cache miss.",
)
@click.option(
    "--log-file",
    metavar="FILE",
    type=click.Path(),
    help="Where the daemon logs. Default: .qatqfs/log in BACKING; with --read-only the system log, or without"
    " one a file in ~/.local/state/qatqfs.",
)
@click.option("--debug", is_flag=True, help="Log more.")
@click.option("-f", "--foreground", is_flag=True, help="Stay in front and log to standard error.")
@click.option(
    "-o",
    "fstab_texts",
    metavar="OPTION[,...]",
    multiple=True,
    help="The same options as in fstab, for example cache_size=1G,ro,level=small; and those of mount(8). With nonempty"
    " MOUNTPOINT may have something in it, which is hidden meanwhile. remount,ro and remount,rw change a mount that is"
    " up, and no other option with them.",
)
@click.pass_context
def command(ctx: click.Context, /, backing: str, mountpoint: str, **given: Any) -> int:
    """Mount BACKING at MOUNTPOINT: a directory of compressed tensor files, shown as the raw files they are.

    Whatever is written below MOUNTPOINT is stored in BACKING as QATC containers, losslessly compressed and with
    checksums; reads decode only what they touch. The command returns as soon as the mount answers, and a daemon
    goes on serving it until "qatqfs umount MOUNTPOINT", or a signal such as TERM or HUP ends it, which commits
    everything as well. One mount at a time may write to a BACKING. MOUNTPOINT is an empty directory.

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
    """Return the options that ``-o`` may name, by the names that users know."""
    found = {}
    for parameter in ctx.command.params:
        if isinstance(parameter, click.Option) and parameter.name not in _NOT_FOR_FSTAB:
            found[parameter.opts[-1].removeprefix("--").replace("-", "_")] = parameter
    return found
