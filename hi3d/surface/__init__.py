"""Views to a signed distance field, and the field to a closed mesh (paper, Section 4.4)."""
