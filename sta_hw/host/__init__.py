"""What drives hardware: beats of its streams, products, the link to a board, counters in words."""
