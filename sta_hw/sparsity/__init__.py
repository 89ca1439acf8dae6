"""Sparse models: pruning, fine-tuning, quantization-aware tuning; needs PyTorch (``make sparsity``)."""
