"""The archive against a real S3 server: `scripts/prove archive`."""
