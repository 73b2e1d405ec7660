"""The command `gtm`: the composition root, the only part that imports all the others."""
