"""What other methods write, as views and meshes in the coordinates of the truth."""
