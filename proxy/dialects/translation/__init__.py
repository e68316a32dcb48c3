"""What translated dialects share: a reply in parts, opaque values, and a history."""
