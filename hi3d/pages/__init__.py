"""Pages for a browser that are one file: tables, plots, pictures, and meshes to turn by hand."""
