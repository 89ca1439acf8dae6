"""The command line, `sta-hw`."""
