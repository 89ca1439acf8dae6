"""Operations become steps and loads: a module for each kind of operation."""
