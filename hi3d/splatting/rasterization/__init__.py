"""Three rasterisers of Gaussians behind one function."""
