"""What a network is: graphs, the families that importers read, and one interpreter in numpy."""
