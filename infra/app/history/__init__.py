"""What the trainer saw: the past as people read it, looked up on the log.

`views` says what is shown, and `rows` makes it of batches and episodes by the trainer's own
functions; both are pure. `steps` and `episodes` look things up and call them, the second for tasks
and turns as well. `sections` says what is drawn of a view, `text` draws it on a terminal and `page`
in HTML, and `tokens` reads a tokenizer. `difference` compares steps and runs.
"""
