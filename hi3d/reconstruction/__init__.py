"""Views to splats to signed distance field to textured mesh (paper, Section 4.4)."""
