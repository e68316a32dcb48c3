"""Groups to train on, small models, and gradients, good and broken."""
