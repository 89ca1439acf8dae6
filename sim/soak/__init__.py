"""Random programs through RTL and reference for as long as one likes, and faults on the bus."""
