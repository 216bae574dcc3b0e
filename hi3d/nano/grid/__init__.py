"""The small model's guess of the whole object: one photo to a grid of density and color."""
