"""The command `i2i`. Each subcommand is a module here; what it runs is imported when it runs."""
