"""Runs with more than kills: outages, overload, hours, wrong clocks, faults that must be caught."""
