"""The Cycles backend: Blender in a process of its own."""
