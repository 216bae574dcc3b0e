"""Gaussian splats fitted to views, and views rendered from them (paper, Section 4.4)."""
