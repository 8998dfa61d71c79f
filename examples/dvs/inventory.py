"""The real DVS between UML nodes alone: node0 is one of them, this machine's kernel stays as it is.

    pyinfra examples/dvs/inventory.py deploy.py

Two, three or eight nodes: change node_count (--data cannot), and _NODES in group_data/all.py.
"""

node_count = 3

node0 = ["@local"]
uml = [f"@uml/node{number}" for number in range(node_count)]
