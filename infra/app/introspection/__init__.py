"""How an agent plays, by its records on the log: times, outcomes, tools, tokens, what to mend.

`failures` says whether the result of a tool is an error, and `tools` joins calls with results.
`lines` follows a conversation through an episode's turns and sees where it goes round. `episodes`
makes an AgentEpisode of an episode's events with these three. `stats` counts many of them, for a
`report`. `rules` say what stands out, as `suggestions` with evidence, and `difference` holds two
reports against each other: all of them are pure. `reader` looks the events up and calls them, and
`sections` says what is drawn, on a terminal or in a page.
"""
