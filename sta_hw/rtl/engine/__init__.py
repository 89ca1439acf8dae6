"""The matrix engine: windows, index decoder, array, accumulator, requantizer, drain."""
