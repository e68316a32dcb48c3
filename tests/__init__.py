"""The tests. Helpers are in `tests.support`; chaos, simulation and fuzz are programs, too."""
