"""Reading of PLY files: the container, and the objects in it."""
