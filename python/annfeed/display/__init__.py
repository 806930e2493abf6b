"""How things are shown to people: reports as text and as HTML, and progress bars.

A `Report` (`report`) is rendered by `text` for terminals and by `html` for notebooks; `progress` has the bars.
"""
