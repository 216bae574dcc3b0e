"""Scores of views and meshes."""
