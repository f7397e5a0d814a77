"""What scripts/lib/rigs.py says of a machine that lacks something the local carrier needs: with programs in the place of
unshare and ip that are denied one thing at a time, as containers deny it. Nothing boots."""
import os
import subprocess

import rig
import ui

DENIED = "Operation not permitted"
# The namespaces are those of the caller, and `ip` does nothing; $DENY is what does not work.
UNSHARE = """#!/bin/sh
[ "$DENY" != namespaces ] || { echo "unshare: unshare failed: %s" >&2; exit 1; }
[ "$1" = -Urn ] || exit 2
shift
exec "$@"
""" % DENIED
IP = """#!/bin/sh
case "$*" in *"$DENY"*) echo "ip: %s" >&2; exit 1;; esac
""" % DENIED
ASK = "import rigs; rigs.host_problem = lambda: None; print(rigs.kvm_problem())"  # nested VT-x is taken for granted
ROWS = (  # (what is denied, what the sentence must have)
    ("namespaces", ("user and network namespaces cannot be made", "unshare failed: " + DENIED)),
    ("link set lo", ("iproute2", DENIED)),
    ("type bridge", ("a bridge cannot be made", "modprobe bridge", DENIED)),
    ("mode tap", ("tap devices cannot be made", "/dev/net/tun", DENIED)),
    ("nothing", ("None",)),
)


def _ask(path, deny):
    return subprocess.run(["/usr/bin/python3", "-B", "-c", ASK], cwd=os.path.join(ui.ROOT, "scripts", "lib"), text=True, timeout=60, check=False,
                          env=dict(os.environ, PATH=path, DENY=deny), stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout.strip()


def probe(t):
    where = rig.directory("probe")
    for name, text in (("unshare", UNSHARE), ("ip", IP)):
        with open(os.path.join(where, name), "w", encoding="ascii") as file:
            file.write(text)
        os.chmod(file.name, 0o755)
    for deny, wanted in ROWS:
        said = _ask(where + ":/usr/bin:/bin", deny)
        t.check(all(part in said for part in wanted) and "\n" not in said, "nested: probe: without %s" % deny, said)
    os.unlink(os.path.join(where, "unshare"))
    os.symlink("/bin/sh", os.path.join(where, "sh"))
    said = _ask(where, "nothing")
    t.check("No such file" in said and "'unshare'" in said, "nested: probe: without the program unshare", said)
