"""The command line: one file per command. The only place where things are constructed."""
