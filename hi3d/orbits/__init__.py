"""Collections of objects to orbits on disk, and those to arrays (Sections 4.2 and 5.1)."""
