"""Words to the photo that the chain begins with (paper, Section 5.5)."""
