"""Photo to orbit (stage 1), orbit to refined orbit (stage 2), photo to mesh (the chain)."""
