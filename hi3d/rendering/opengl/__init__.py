"""The OpenGL backend."""
