"""A lab whose user has the DVS at /usr/src/dvs and Linux 4.9.88 at /usr/src/linux.

Laid over the repository's group_data/all.py. Nothing of yours is written to. What else has to be
there, and why, stands in docs/dvs.md, "The real DVS, step by step".
"""

_DVS = "/usr/src/dvs"
# As many as inventory.py has: the loop programs are compiled for one pair of nodes each.
_NODES = 3

# 4.9's UML and the DVS's IPC variant are 32-bit: compiled in a build root, with a root to match.
_BUILD_ROOT = {
    "suite": "bullseye",
    "arch": "i386",
    "mirror": "http://deb.debian.org/debian",
    "packages": ["python2-minimal", "libncurses-dev", "liblz4-dev", "file", "cpio"],
}

lab = "dvs"
host_dvk = False

kernel = {
    "source": "/usr/src/linux",
    # In order. The second holds what the first needs and no longer carries itself
    # (ipc/dvk_ipc.h, ipc/dvk_decode.c: they stand in linux-5.10.94/ipc today).
    "overlays": [f"{_DVS}/linux-4.9.88", "/usr/src/dvs-overlay"],
    # *.patch, -p1, of your own: what the overlay needs to compile for UML.
    "patches": ["/usr/src/dvs-patches"],
    "beside": {"/usr/src/dvs": _DVS},
    "subarch": "i386",
    "base": f"{_DVS}/kernel/UMLaaN/UMLaaN-guest.config",
    "fragments": [],
    # The configuration is older than the overlay, whose CONFIG_DVS is another kind of kernel.
    "options": {"STATIC_LINK": "y", "DVS": "n"},
    "toolchain": _BUILD_ROOT,
}

_LIBRARY = {"ioctl": "stub_dvkcall.o", "ipc": "libdvkipc.so"}


def _step(folder: str, before: str = "") -> dict[str, object]:
    """One make; which library a program uses is LIBS, by a path relative to its folder."""
    up = "../" * (folder.count("/") + 1)
    libs = {v: {"LIBS": f"{before}{up}dvk-lib/{name}"} for v, name in _LIBRARY.items()}
    return {"dir": folder, **libs}


_PAIRS = [(a, b) for a in range(_NODES) for b in range(_NODES) if a != b]


def _loops(server: int, client: int) -> dict[str, object]:
    """Copies of the loop programs for one pair of nodes; upstream's are for server 0, client 1."""
    there = f"test-{server}-{client}"
    own = " ".join(
        f"sed -i -E 's/^(#define[[:space:]]+RMTNODE[[:space:]]+).*/\\1{number}/' {files};"
        for files, number in (
            ("loop_r-s_server.c loop_copy_server.c", client),
            ("loop_sr_client.c loop_copy_client.c", server),
        )
    )
    targets = "loop_r-s_server loop_sr_client loop_copy_server loop_copy_client"
    return {
        **_step("dvk-proxies"),
        "command": f"rm -rf {there}; mkdir {there}; cp test/Makefile test/*.[ch] {there}; "
        f'cd {there}; {own} make LIBS="../$LIBS" {targets}',
    }


dvs = {
    "source": _DVS,
    "exclude": [".git", "linux-4.9.88", "linux-5.10.94", "doc", "vos"],
    "bits": 32,
    "toolchain": _BUILD_ROOT,
    "steps": [
        {
            "dir": ".",
            "command": "mkdir -p lz4-1.8.2/lib && cd lz4-1.8.2/lib && "
            "ar x /usr/lib/i386-linux-gnu/liblz4.a",
        },
        {"dir": "lib/config"},
        {"dir": "dvk-lib"},
        _step("dvk-tests"),
        _step("dvk-proxies", "../lib/config/libconfig.so "),
        _step("dvk-proxies/test"),
        _step("dvk-proxies/test/m3ftp"),
        *(_loops(server, client) for server, client in _PAIRS),
    ],
    "cluster": "TEST_CLUSTER",
    "programs": {
        "guest_init": "./test_dvs_init -u -n {node} -D {debug} -C {cluster}",
        # Its test_dc_init makes a DC, but neither a PID namespace nor a DC file.
        "dc_file": None,
        # Two of a dozen plain starts hang in a race of its own threads; on a UML's one CPU a
        # thread of this class runs until it waits, and none of 16 did: docs/dvs.md.
        "proxy": "chrt -f 1 ./lz4tcp_proxy_bat -bBZ -n {remote_name} -i {remote}",
        # A bound proxy cannot be ended, one that outlived its peer connects no more: docs/dvs.md.
        "proxy_restart": "lab",
        "connect_timeout": 90,
    },
}

measure = {
    "buffers": ["1M"],
    "programs": {
        "loop_dir": "dvk-proxies/test-{server}-{client}",
        "loop_nodes": _PAIRS,
        "environment": {},
        # m3ftp moves this much at once; 64 KiB: -L 65536 after guest_init's program.
        "buffer": "sed -n 's/^max_copy_len=//p' {state}/info",
    },
}

root = {
    "made": {
        "suite": "bullseye",
        "arch": "i386",
        "mirror": "http://deb.debian.org/debian",
        "size": "1G",
    }
}
node = {"mem": "256M"}
