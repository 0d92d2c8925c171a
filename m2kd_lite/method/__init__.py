"""The paper, and nothing else: every equation is in this folder.

`table.py` is the table of methods; `losses.py` has Eq. 1 to 4, `targets.py` says which teacher fills which columns, `masks.py` prunes
(section 3.3), `snapshots.py` rebuilds every past model (Eq. 7 and 8). `nets.py` has the networks. `exemplars.py`, `scaled.py` and
`importance.py` are what the paper compares with. How it is trained is in `training/`.
"""
