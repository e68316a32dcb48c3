"""A run as curves: the steps that count, and each metric by step or by time.

Pure are `curves` (the fold over the ledger, and what is computed of it), `plots` (curves as lines
of a picture), `addresses` (what an address of a run's page means) and `views` (what it shows).
`ledger` reads the trainers' ledger on from where it last ended.
"""
