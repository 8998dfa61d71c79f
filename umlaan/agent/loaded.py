"""A module of the lab host's kernel as it is loaded: its content, parameters and devices.

Procedure, "ARRANCAR DVS EN HOST": tests.sh begins with "mknod /dev/dvk" and "insmod dvk.ko". After
a boot systemd loads it by the files that are written here.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Any

from umlaan.agent import machine
from umlaan.agent.chamber import BuildError, say
from umlaan.agent.files import read_json, write_atomic, write_json

_YES, _NO = {"y", "Y", "1"}, {"n", "N", "0"}
MARK = "# Written by umlaan for lab {lab}."


class Stays(BuildError):
    """It cannot be unloaded now; its cause alone, for whom its remedy is none."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"{cause}{remedy}")
        self.cause = cause


def _sys(spec: dict[str, Any]) -> str:
    return machine.at(spec, f"/sys/module/{_name(spec)}")


def is_loaded(spec: dict[str, Any]) -> bool:
    """Whether it is loaded, however."""
    return os.path.isdir(_sys(spec))


def _users(spec: dict[str, Any]) -> str:
    """How many use it; empty where nobody does."""
    count = machine.read(f"{_sys(spec)}/refcnt").strip()
    return "" if count == "0" else count


def _name(spec: dict[str, Any]) -> str:
    return str(spec["name"]).replace("-", "_")


def parameters(spec: dict[str, Any]) -> list[str]:
    """NAME=VALUE of each, as insmod and modprobe take them."""
    return [f"{key}={value}" for key, value in sorted(spec["parameters"].items())]


def conf(spec: dict[str, Any]) -> str:
    """The name of each of a module's files."""
    return f"umlaan-{spec['lab']}-{spec['name']}.conf"


def files(spec: dict[str, Any]) -> dict[str, str]:
    """What has the module loaded at each boot, where its release runs."""
    mark, name = MARK.format(lab=spec["lab"]), _name(spec)
    stem = conf(spec)
    words = " ".join(parameters(spec))
    found = {f"/etc/modules-load.d/{stem}": f"{mark}\n{name}\n"}
    if words:
        found[f"/etc/modprobe.d/{stem}"] = f"{mark}\noptions {name} {words}\n"
    rows = [f"c {path} 0600 root root - {number}\n" for path, number in spec["devices"].items()]
    if rows:
        found[f"/etc/tmpfiles.d/{stem}"] = f"{mark}\n{''.join(rows)}"
    return {machine.at(spec, path): text for path, text in found.items()}


def files_of(spec: dict[str, Any]) -> list[str]:
    """Those of this lab that stand on the machine."""
    mark, found = MARK.format(lab=spec["lab"]), []
    for folder in ("modules-load.d", "modprobe.d", "tmpfiles.d"):
        path = machine.at(spec, f"/etc/{folder}")
        with contextlib.suppress(FileNotFoundError):
            names = [n for n in sorted(os.listdir(path)) if n.startswith(f"umlaan-{spec['lab']}-")]
            found += [f"{path}/{name}" for name in names]
    return [path for path in found if machine.read(path).startswith(f"{mark}\n")]


def same(wanted: str, found: str) -> bool:
    """Whether a parameter's value is the wanted one, as the kernel writes numbers and yes or no."""
    if wanted == found or (wanted in _YES and found in _YES) or (wanted in _NO and found in _NO):
        return True
    with contextlib.suppress(ValueError):
        return int(wanted, 0) == int(found, 0)
    return False


def content_differs(spec: dict[str, Any], file: str) -> bool:
    """Whether the loaded module is another than the file's; False where the kernel says nothing."""
    with open(file, "rb") as opened:
        data = opened.read()
    with contextlib.suppress(OSError), open(f"{_sys(spec)}/notes/.note.gnu.build-id", "rb") as note:
        return note.read() not in data
    version = machine.read(f"{_sys(spec)}/srcversion").strip()
    return bool(version) and f"srcversion={version}".encode() not in data


def differences(spec: dict[str, Any], file: str) -> list[str]:
    """How the loaded module differs from what is wanted; empty where it does not."""
    rows = ["the loaded one is another build"] if content_differs(spec, file) else []
    given = _given(spec)
    for key, found in _values(spec).items():
        # What the module sets for itself says nothing, if it was given what is wanted.
        if key in given and given[key] == spec["parameters"][key]:
            continue
        rows.append(f"{key} {found} → {spec['parameters'][key]}")
    return rows


def _values(spec: dict[str, Any]) -> dict[str, str]:
    """The parameters whose values are others than the wanted ones, as the kernel says them."""
    found = {}
    for key, wanted in spec["parameters"].items():
        path = f"{_sys(spec)}/parameters/{key}"
        # A parameter may be hidden from /sys: then nobody can tell.
        if os.path.exists(path) and not same(wanted, value := machine.read(path).strip()):
            found[key] = value
    return found


def _own_values(spec: dict[str, Any]) -> str:
    """The record of parameters that the module does not leave as they are given: dvk's dbglvl."""
    return f"{spec['dir']}.loaded.json"


def _given(spec: dict[str, Any]) -> dict[str, str]:
    """What those parameters were given when the module was loaded: by a run, as it wrote down.

    By a boot since then: what its file says, as long as no run has written that in this boot.
    """
    own = read_json(_own_values(spec)) or {"given": {}}
    given: dict[str, str] = own["given"]
    if not given or own["boot"] == machine.running(spec)["boot_id"]:
        return given
    text = machine.read(machine.at(spec, f"/etc/modprobe.d/{conf(spec)}"))
    pairs = (word.partition("=") for word in text.split())
    said = {key: value for key, equals, value in pairs if equals}
    return {key: said.get(key, value) for key, value in given.items()}


def problems(spec: dict[str, Any], file: str) -> list[str]:
    """What is to be done so that the module is loaded as wanted, now and after a boot."""
    if not is_loaded(spec):
        rows = ["load it, it is not loaded"]
    else:
        rows = [f"load it again, {text}" for text in differences(spec, file)]
    for path, number in spec["devices"].items():
        if device(machine.at(spec, path)) != number:
            rows.append(f"make {path}, character device {number}")
    wanted = files(spec)
    for path, text in wanted.items():
        if (there := machine.read(path)) != text:
            rows.append(f"{path} {'differs' if there else 'is missing'}")
    return rows + [f"{path} is no longer wanted" for path in unwanted(spec, wanted)]


def unwanted(spec: dict[str, Any], wanted: dict[str, str]) -> list[str]:
    """This module's files that an earlier data wanted."""
    own = [path for path in files_of(spec) if path.endswith(f"/{conf(spec)}")]
    return [path for path in own if path not in wanted]


def device(path: str) -> str | None:
    """MAJOR:MINOR of a character device; None where there is none."""
    with contextlib.suppress(OSError):
        found = os.stat(path)
        if stat.S_ISCHR(found.st_mode):
            return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    return None


def unload(spec: dict[str, Any], reason: str, otherwise: str = "reboot") -> None:
    """Unload it if it is loaded. Stays where something uses it, or its data says that it cannot."""
    if not is_loaded(spec):
        return
    why = f" ({reason})" if reason else ""
    if not spec["unload"]:
        raise Stays(
            f"module {spec['name']}{why}: it is loaded and cannot be unloaded "
            "(host_modules.unload is False)",
            ": reboot, then run again",
        )
    if users := _users(spec):
        raise Stays(
            f"module {spec['name']}{why}: it is loaded and in use by {users}",
            f"; end what uses it (an initialised DVS counts), or {otherwise}, then run again",
        )
    machine.run(["rmmod", _name(spec)])


def _armed(spec: dict[str, Any]) -> str:
    """The record of what a boot was made for: none is made twice for the same."""
    return f"{spec['dir']}.armed.json"


def stuck(spec: dict[str, Any], file: str) -> bool:
    """Whether it is loaded otherwise than wanted and only a reboot takes it out of the kernel.

    Not where one was made for this very difference and did not help: then ``load`` says so.
    """
    if not is_loaded(spec) or not (rows := differences(spec, file)):
        return False
    armed = read_json(_armed(spec)) or {}
    if armed.get("rows") == rows and armed["boot"] != machine.running(spec)["boot_id"]:
        return False
    return not spec["unload"] or bool(_users(spec))


def arm(spec: dict[str, Any], file: str) -> None:
    """Have the next boot load what is wanted; what is loaded now stays."""
    rows = differences(spec, file)
    if (read_json(_armed(spec)) or {}).get("rows") != rows:
        write_json(_armed(spec), {"boot": machine.running(spec)["boot_id"], "rows": rows})
    # Before the file is another than the one that this boot has read. What the module has in place
    # of a wanted value counts as given: after the next boot its file says what was, as of a run.
    if given := _values(spec) | _given(spec):
        _note_given(spec, given)
    _write(spec)


def load(spec: dict[str, Any], file: str) -> None:
    """Load it with its parameters, make its devices, write what does so at each boot."""
    if given := _given(spec):
        # Before the file is another than the one that this boot has read.
        _note_given(spec, given)
    if is_loaded(spec) and (rows := differences(spec, file)):
        # Where it stays, the next boot has to load what is wanted, not what was.
        arm(spec, file)
        unload(spec, "; ".join(rows))
    if not is_loaded(spec):
        # modprobe also brings what it depends on; elsewhere than in its folder only insmod does.
        by = ["modprobe", _name(spec)] if "/lib/modules/" in file else ["insmod", file]
        machine.run([*by, *parameters(spec)])
        if not is_loaded(spec):
            raise BuildError(
                f"module {spec['name']}: {by[0]} loaded nothing: is it built into the kernel?"
            )
        own = _values(spec)
        for key, value in own.items():
            say(
                f"module {spec['name']} sets {key} itself: {value}, given {spec['parameters'][key]}"
            )
        _note_given(spec, {key: spec["parameters"][key] for key in own})
        if content_differs(spec, file):
            raise BuildError(f"module {spec['name']}: loaded, but it is another build than {file}")
    for path, number in spec["devices"].items():
        target = machine.at(spec, path)
        if device(target) == number:
            continue
        if os.path.lexists(target):
            raise BuildError(f"{target} is there and is not character device {number}")
        machine.run(["mknod", "-m", "600", target, "c", *number.split(":")])
    _write(spec)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_armed(spec))
    say(f"module {spec['name']} is loaded")


def _note_given(spec: dict[str, Any], given: dict[str, str]) -> None:
    value = {"boot": machine.running(spec)["boot_id"], "given": given}
    if read_json(_own_values(spec)) != value:
        write_json(_own_values(spec), value)


def forget(spec: dict[str, Any]) -> None:
    """Have no boot load it any more; it stays as it is until the next."""
    for path in unwanted(spec, {}):
        os.unlink(path)
        say(f"{path} removed: module {spec['name']} is loaded no more after the next boot")


def _write(spec: dict[str, Any]) -> None:
    wanted = files(spec)
    for path, text in wanted.items():
        if machine.read(path) != text:
            write_atomic(path, text.encode(), 0o644)
    for path in unwanted(spec, wanted):
        os.unlink(path)
