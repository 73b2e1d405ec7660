"""The commands of `gtm`: a module has `add(command, parser)` and `run(args) -> exit status`."""
