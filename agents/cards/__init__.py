"""Agents' cards: what they say, who signed them, and the registry that `a2a.cards` is.

`card` makes an agent's card, of what its host serves and what its owner's file (`profile`) says.
`signatures` signs cards and verifies them. `registry` reads all cards, says which hosts are there
now, and publishes or removes a card.
"""
