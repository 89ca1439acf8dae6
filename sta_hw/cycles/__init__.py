"""The cycle model: how many cycles a program takes, from its instructions."""
