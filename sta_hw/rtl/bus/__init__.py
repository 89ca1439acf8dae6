"""AXI and the DMA."""
