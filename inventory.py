"""Which machines: node0 carries the lab, every @uml/nodeN is the root of one UML node.

More nodes: raise node_count, or add ("@uml/node7", {"node.mem": "512M"}) to the list.
Another machine: node0 = [("lab1.example.org", {"ssh_user": "root"})].
"""

node_count = 1

node0 = ["@local"]
uml = [f"@uml/node{number}" for number in range(1, node_count + 1)]
