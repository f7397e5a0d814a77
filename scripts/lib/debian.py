"""Debian's archive, read through a private apt state in the cache: it needs no root, leaves the machine's own
sources alone, and checks everything against the archive's signature as apt always does."""
import os
import re
import shutil

import cache
import ui

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
DEFAULT_MIRROR = "http://deb.debian.org/debian"
SOURCES = """Types: deb
URIs: %(mirror)s
Suites: bookworm trixie
Components: main
Architectures: amd64
Signed-By: %(keyring)s

Types: deb-src
URIs: %(mirror)s
Suites: trixie
Components: main
Signed-By: %(keyring)s
"""


def mirror():
    """The Debian mirror this machine uses already, or the world's."""
    try:
        targets = ui.command(["apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(CODENAME)|$(REPO_URI)",
                              "Created-By: Packages"])
    except ui.Failure:
        return DEFAULT_MIRROR
    for line in targets.splitlines():
        origin, label, codename, uri = (line.split("|") + [""] * 4)[:4]
        if origin == "Debian" and label == "Debian" and "-" not in codename and uri:
            return uri.rstrip("/")
    return DEFAULT_MIRROR


def _options():
    state = cache.directory("apt")
    return ["-o", "Dir::State::Lists=" + os.path.join(state, "lists"),
            "-o", "Dir::Etc::SourceList=" + os.path.join(state, "debian.sources"),
            "-o", "Dir::Etc::SourceParts=-",
            "-o", "Dir::Etc::Preferences=-", "-o", "Dir::Etc::PreferencesParts=-",
            "-o", "Dir::Cache=" + os.path.join(state, "cache"),
            "-o", "Dir::Cache::Archives=" + os.path.join(state, "cache", "archives"),
            "-o", "APT::Architecture=amd64", "-o", "APT::Architectures::=amd64",
            "-o", "Acquire::Languages=none", "-o", "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false",
            "-o", "APT::Sandbox::User=root" if os.getuid() == 0 else "APT::Sandbox::User="]


def update():
    """Fetches the signed indexes once. Raises Failure when the archive cannot be reached."""
    if not shutil.which("apt-get"):
        raise ui.Failure("apt-get is not there: this is not a Debian or Ubuntu system")
    if not os.path.exists(KEYRING):
        raise ui.Failure("%s is missing: install the package debian-archive-keyring" % KEYRING)
    state = cache.directory("apt")
    stamp = os.path.join(state, "updated")
    if os.path.exists(stamp):
        return
    for part in ("lists/partial", "cache/archives/partial"):
        os.makedirs(os.path.join(state, part), exist_ok=True)
    with open(os.path.join(state, "debian.sources"), "w", encoding="ascii") as file:
        file.write(SOURCES % {"mirror": mirror(), "keyring": KEYRING})
    with ui.step("reading Debian's package lists"):
        ui.command(["apt-get", *_options(), "-o", "APT::Update::Error-Mode=any", "update"],
                   what="reading Debian's package lists")
    with open(stamp, "w", encoding="ascii"):
        pass


def _fresh(attempt):
    """Runs `attempt`; when it fails, the lists may be older than the archive: fetches them again, once."""
    update()
    try:
        return attempt()
    except ui.Failure:
        os.unlink(cache.directory("apt", "updated"))
        update()
        return attempt()


def source_tarball(package, version, target_dir):
    """Downloads the .orig tarball of a source package and returns its path. Only this file is fetched: some
    mirrors lack the .dsc, and nothing of Debian's own patches is wanted."""

    def attempt():
        listing = ui.command(["apt-get", *_options(), "source", "--print-uris", "%s=%s" % (package, version)])
        found = re.search(r"^'([^']+)' (\S+\.orig\.tar\.\S+) (\d+) (SHA256:[0-9a-f]{64})", listing, re.M)
        if not found:
            raise ui.Failure("Debian's index names no source for %s %s" % (package, version))
        target = os.path.join(target_dir, found.group(2))
        ui.command(["/usr/lib/apt/apt-helper", *_options(), "download-file", found.group(1), target,
                    found.group(4)], what="downloading " + found.group(2))
        return target

    return _fresh(attempt)


def _stanzas(text):
    for block in text.split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z0-9-]+): *(.*)$", block, re.M))
        if fields:
            yield fields


def dependency_of(meta_package, version_prefix):
    """The newest package that `meta_package` stands for whose version begins with `version_prefix`, as
    (name, version)."""

    def attempt():
        text = ui.command(["apt-cache", *_options(), "show", meta_package])
        for fields in _stanzas(text):
            if fields.get("Version", "").startswith(version_prefix):
                return re.split(r"[ (]", fields["Depends"])[0], fields["Version"]
        raise ui.Failure("Debian's index has no %s %s*" % (meta_package, version_prefix))

    return _fresh(attempt)


def newest(package, version_prefix):
    """The newest version of a package that begins so."""

    def attempt():
        text = ui.command(["apt-cache", *_options(), "show", package])
        for fields in _stanzas(text):  # apt shows the newest first
            if fields.get("Version", "").startswith(version_prefix):
                return fields["Version"]
        raise ui.Failure("Debian's index has no %s %s*" % (package, version_prefix))

    return _fresh(attempt)


def download(package, version, target_dir):
    """Downloads one binary package and returns the path of the .deb file."""

    def attempt():
        ui.command(["apt-get", *_options(), "download", "%s=%s" % (package, version)], cwd=target_dir,
                   what="downloading " + package)
        for name in os.listdir(target_dir):
            if name.startswith(package + "_") and name.endswith(".deb"):
                return os.path.join(target_dir, name)
        raise ui.Failure("apt-get download left no file for " + package)

    return _fresh(attempt)


def closure(packages, suite, target_dir):
    """Downloads packages of one suite and all they depend on, for a system that has nothing yet, into a directory of its
    own below `target_dir`. Answers the paths of the .deb files."""
    status, archives = os.path.join(target_dir, "status"), os.path.join(target_dir, "archives")
    os.makedirs(os.path.join(archives, "partial"), exist_ok=True)
    with open(status, "w", encoding="ascii"):
        pass

    def attempt():
        ui.command(["apt-get", *_options(), "-o", "Dir::State::status=" + status, "-o", "Dir::Cache::archives=" + archives,
                    "-o", "Debug::NoLocking=1", "-t", suite, "--no-install-recommends", "-y", "--download-only", "install",
                    *packages], what="downloading %s and what they need" % ", ".join(packages))
        return sorted(os.path.join(archives, name) for name in os.listdir(archives) if name.endswith(".deb"))

    return _fresh(attempt)
