"""The processes of a run that are not the product's, and starts of the product's with a twist."""
