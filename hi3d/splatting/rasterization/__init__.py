"""Three rasterizers of Gaussians behind one function."""
