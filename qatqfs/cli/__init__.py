"""The command line: one module for each verb, which parses, calls a layer, and shows progress and results.

:mod:`~qatqfs.cli.main` is the entry point and the only place that turns errors into a line and an exit status
(:mod:`~qatqfs.cli.exits`). Shared by the verbs: :mod:`~qatqfs.cli.values` (what options accept),
:mod:`~qatqfs.cli.contents` (what is at a path), :mod:`~qatqfs.cli.outputs` (files that appear whole or not at all),
:mod:`~qatqfs.cli.progress` and :mod:`~qatqfs.cli.tables`.
"""
