"""What agents speak: each dialect reads a request and trims what it did not ask for."""
