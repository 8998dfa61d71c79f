"""The page's own values: host kernel, br0 on the host itself, root /dev/sdb6, mem=1024M, dcid=0.

Laid over the repository's group_data/all.py. /dev/sdb6 is never formatted and never repartitioned.
"""

import runpy
from pathlib import Path

# What is the same in a lab of UML nodes alone: sources, build root, the DVS's build.
_same = runpy.run_path(str(Path(__file__).resolve().parents[2] / "dvs/group_data/all.py"))

lab = "uml-as-a-node"
host_dvk = True
# The kernel is tried once and kept only if it proves itself. "when_needed" also reboots, for it and
# where only a reboot ends a proxy or takes out a module: a UML was killed, dvk.ko is another.
reboot = "never"

network = {
    "namespace": None,
    "bridge": "br0",
    "address": "192.168.1.10/24",
    "tap": "HTAP",
}

kernel = _same["kernel"]

host_kernel = {
    **_same["kernel"],
    "arch": "i386",
    "base": "/usr/src/dvs/kernel/UMLaaN/UMLaaN-host.config",
    "options": {},
    "modules": True,
}
host_boot = {
    # The page names the host's card eth0; dc_init's memory limit wants cgroup v1.
    "parameters": ["net.ifnames=0", "systemd.unified_cgroup_hierarchy=0"],
}
host_modules = [
    {
        "name": "dvk",
        "source": "kernel:ipc/dvk-mod",
        "variables": {"KERNELDIR": "{kernel}", "ARCH": "i386"},
        "places": ["/lib/modules/{release}/extra/{file}", "{dvs}/dvk-mod/{file}"],
        # mknod /dev/dvk c 33 0; insmod dvk.ko …
        "load": True,
        # Its end patches the kernel's text back, which oopses: text_poke, seen on 4.9.88.
        "unload": False,
        "parameters": {
            "dvk_major": "33",
            "dvk_minor": "0",
            "dvk_nr_devs": "1",
            "dbglvl": "{debug}",
        },
        "devices": {"/dev/dvk": "33:0"},
    }
]

# dc_init makes the PID namespace that the UML is launched in. It is linked with Spread, no package
# of Debian's: its sources are the folder spread/ of your tree. docs/dvs.md says how to go without.
_SPREAD = (
    "../../spread/libspread/libspread-core.a ../../lib/config/libconfig.so "
    "../../spread/libspread-util/lib/libspread-util.a ../../dvk-lib/stub_dvkcall.o -ldl"
)
dvs = {
    **_same["dvs"],
    "steps": [
        *_same["dvs"]["steps"],
        # Only its client libraries, after the header that they share: make of the rest wants a
        # manual's tools.
        {
            "dir": "spread",
            "command": "sh ./configure && make -C libspread-util/include && "
            "make -C libspread-util/src && make -C libspread libspread-core.a",
        },
        {
            "dir": "dvs-apps/dc_init",
            "command": '[ -z "$LIBS" ] || make INCLUDE=".. -I../../spread/include '
            '-I../../spread/libspread-util/include" LIBS="$LIBS"',
            "ioctl": {"LIBS": _SPREAD},
        },
    ],
    "programs": {
        **_same["dvs"]["programs"],
        "dc": "cd ../dvs-apps/dc_init && ./dc_init {config}",
        "dc_config": {"memory": 512},
        "dc_file": "{dest}/dvs-apps/dc_init/DC{dcid}.sh",
        "guest_dc": "./test_dc_init -d {dcid}",
        # As in a UML, which has one CPU: plain, its receiver hung at its first start on two.
        "proxy": "taskset -c 0 chrt -f 1 ./lz4tcp_proxy_bat -bBZ -n {remote_name} -i {remote}",
    },
}

measure = _same["measure"]
root = {"device": "/dev/sdb6"}
# "user": "root" would be the page's own way: who is root in the guest can then become root here.
node = {"mem": "1024M", "dcid": 0}

# pyinfra would take it for data.
del _same
