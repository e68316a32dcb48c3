"""Topics as a release wrote them, which every later version reads to the same results."""
