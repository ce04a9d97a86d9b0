"""Benchmarks of qatqfs, one module each in bench_lib; run them with scripts/bench."""

import argparse
import json
import sys

from bench_lib import blocks_bench, codec_bench, mount_bench, sizes_bench, writes_bench

from qatqfs.cli.memory import keep_freed_memory

_BENCHMARKS = {
    "blocks": blocks_bench,
    "codec": codec_bench,
    "mount": mount_bench,
    "sizes": sizes_bench,
    "writes": writes_bench,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    benchmarks = parser.add_subparsers(dest="benchmark", required=True)
    for name, module in _BENCHMARKS.items():
        sub = benchmarks.add_parser(name, help=module.__doc__.splitlines()[0], description=module.__doc__)
        sub.add_argument("--json", action="store_true", help="print the figures as JSON and nothing else")
        module.add_arguments(sub)
    options = parser.parse_args()
    keep_freed_memory()  # as the command does; all that is compared profits
    module = _BENCHMARKS[options.benchmark]
    figures = module.run(options)
    print(json.dumps(figures, indent=2) if options.json else module.report(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
