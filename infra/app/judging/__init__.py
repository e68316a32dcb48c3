"""Judging by hand: people read episodes and write rewards for a component.

`verdicts` makes rewards of what a person says, and `queue` says which episodes a person judges
next, alone or in pairs. `sections` says what a person sees of one. All three are pure, and `reader`
looks conversations and rewards up for them.
"""
