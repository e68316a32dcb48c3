"""What serves the tests themselves: order of files, child processes, figures of the tree."""
