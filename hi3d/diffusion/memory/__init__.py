"""How much memory sampling takes: modes, counts and plans."""
