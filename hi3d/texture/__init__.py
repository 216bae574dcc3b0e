"""Base-colour textures baked from views (paper, Section 4.4)."""
