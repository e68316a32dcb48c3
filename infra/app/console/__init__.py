"""The console: the log as pages for people, in any browser and without a script.

Pure are `access` (whose request is answered), `addresses` (what an address of a page means),
`windows` (how much of a long thing one answer holds) and `views` (what a page shows). `lookup`
reads the log through `odradek.infra.app.history`, `page` makes HTML by the templates beside it,
`app` answers requests, and `server` listens. `run` has the pages of runs, as curves.
"""
