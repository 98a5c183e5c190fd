"""How fast this project trains, and could: `pytest benchmarks/performance -m speed`, `-m peers` and `-m growth`.

What is measured, and where: `families` and `speed` (this project's loop against `reference`, the loop of a notebook;
records and page in `speed_record`), `peers` (whole processes beside the scripts of other tools), `growth` (cost as the
work grows), `test_pages` (the pages of many runs), `cost` (the least work of a run, and what a machine reaches),
`memory` (of a GPU, as a page: `python -m benchmarks.performance.memory`).
"""
