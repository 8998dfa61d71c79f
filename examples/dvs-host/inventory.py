"""The procedure to the letter: node0 is this machine, with a DVK kernel of its own; node1 a UML.

    pyinfra examples/dvs-host/inventory.py deploy.py

It builds and installs a kernel and changes this machine's boot: read docs/host-kernel.md and
docs/dvs.md first.
"""

node0 = ["@local"]
uml = ["@uml/node1"]
