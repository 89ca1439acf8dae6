"""Where the cycles go: tables, timelines and pictures of a run."""
