"""The contract between hardware and software as plain data: configurations, patterns, instructions, registers."""
