"""Signed distance field and color, rendered with the weights of NeuS."""
