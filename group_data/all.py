"""The lab's values: the procedure's, as far as it names them. A host's own tuple, its group's file
and --data override them; "network.mtu"-like keys in a tuple or --data change one entry.

docs/data.md lists every key.
"""

# The default lab uses the project's own small tree of the DVS's shape, so that it can be tried
# without the DVS. examples/dvs/ is the lab of a user who has it at /usr/src/dvs.
_STUB = "stub_dvkcall.o"
_IPC = "libdvkipc.so"


def _step(folder: str) -> dict[str, object]:
    """One make; which library a program uses is LIBS, by a path relative to its folder."""
    up = "../" * (folder.count("/") + 1)
    return {
        "dir": folder,
        "ioctl": {"LIBS": f"{up}dvk-lib/{_STUB}"},
        "ipc": {"LIBS": f"{up}dvk-lib/{_IPC}"},
    }


dvs = {
    "source": "examples/sample-dvs",
    "steps": [
        {"dir": "dvk-lib"},
        _step("dvk-tests"),
        _step("dvk-proxies"),
        _step("dvk-proxies/test"),
        _step("dvk-proxies/test/m3ftp"),
    ],
    "programs": {
        # Its state is a folder, and its DC file goes where it is told: a place a lab and a side.
        "state": "/run/sample-dvs",
        "host_state": "{run}/dvs",
        # Its programs listen on the lab's address alone, whatever else the machine has.
        "environment": {
            "DVS_STATE": "{state}",
            "DVS_PROXY_PORT": "{base_port}",
            "DVS_ADDRESS": "{address}",
        },
        "init_end": "./test_dvs_init -e",
        "dc": "./test_dc_init -d {dcid} -o {run}",
        "dc_file": "{run}/DC{dcid}.sh",
        "dc_end": "./test_dc_init -e -d {dcid}",
        "proxy": "./tcp_proxy -n {remote_name} -i {remote}",
        "beats": True,
    },
}
