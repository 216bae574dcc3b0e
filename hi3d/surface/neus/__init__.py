"""Signed distance field and colour, rendered with the weights of NeuS."""
