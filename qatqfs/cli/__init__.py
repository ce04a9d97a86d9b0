"""The command line. Each verb has one module, which parses, calls a layer, and shows progress and results.

:mod:`~qatqfs.cli.main` is the entry point, and the only place that turns errors into a line and an exit status
(:mod:`~qatqfs.cli.exits`). The verbs share :mod:`~qatqfs.cli.values` (values of options),
:mod:`~qatqfs.cli.contents` (what is at a path), :mod:`~qatqfs.cli.outputs` (files that appear whole or not at all),
:mod:`~qatqfs.cli.progress` and :mod:`~qatqfs.cli.tables`.
"""
