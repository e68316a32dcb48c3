"""The gateway's door: who asks, and how often.

`authenticator` knows clients by `bearer_keys` or by JSON Web Tokens, whose keys `jwks` fetches and
keeps fresh as `refresh` says. `door` stands before the HTTP application: it lets principals in, as
often as `rates` says, and tells the SDK who they are.
"""
