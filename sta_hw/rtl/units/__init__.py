"""What stands around the engine: loader, feeds, softmax, results, LayerNorm."""
