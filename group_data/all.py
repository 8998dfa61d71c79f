"""The lab's values: the procedure's, as far as it names them. A host's own tuple, its group's file
and --data override them; "network.mtu"-like keys in a tuple or --data change one entry.

docs/data.md lists every key.
"""

# The default lab uses the project's own small tree of the DVS's shape; yours is "/usr/src/dvs".
dvs = {
    "source": "examples/sample-dvs",
}
