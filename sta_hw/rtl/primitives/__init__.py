"""What blocks are made of: queues, memories, multipliers, layouts."""
