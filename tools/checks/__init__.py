"""The rules of `./dev check`, one module each. A rule is a function of a Tree that returns Findings."""
