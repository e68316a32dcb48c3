"""Poison: records that no stage can use, one at a time and as 1 % of a load."""
