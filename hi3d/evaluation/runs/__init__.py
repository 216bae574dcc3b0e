"""Whole sets of objects by several methods: from the truth to a table of scores."""
