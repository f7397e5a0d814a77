"""Other VT-d units than the nested rig's usual one: what QEMU can vary, and one that does not remap interrupts."""
import build
import rig_multiboot
import rig_nested
import rig_vf

PROGRAMS = ("vf_msix", "vf_flr")
# Caching mode (VT-d specification 6.1), 39-bit addresses (3 levels), pages that are always snooped, and no x2APIC.
OTHER = "intremap=on,eim=off,aw-bits=39,caching-mode=on,snoop-control=on"
NO_REMAPPING = "intremap=off,eim=off,aw-bits=48,caching-mode=off,snoop-control=off"
ECAP_SC = 1 << 7                 # VT-d specification 10.4.3
SAID = ("addresses of 39 bits", "caching mode yes", "3 levels", "xAPIC", "snoop control yes")
SECONDS = 200


def _vf_vm():
    return rig_nested.vm("small", "0", "8M", "kernel = hostile.elf", "cmdline = seed=1 test=" + ",".join(PROGRAMS),
                         "net0 = vf pf=%s mac=%s" % (rig_vf.PF, rig_vf.SMALL_MAC))


def _other(t, carrier):
    """What needs most of a VT-d unit, on one that differs in all that QEMU offers."""
    out = rig_nested.disk("variant", "[machine]\nconsole = serial\non_idle = stay\n" + _vf_vm(),
                          {"hostile.elf": rig_multiboot.guest("hostile.elf")})
    with rig_nested.Boot(carrier, "variant", out, memory=256, iommu=OTHER) as boot:
        for program in PROGRAMS:
            match = boot.expect(r"^hostile: %s: (.*): (ok|BAD)\n" % program, SECONDS)
            t.check(match.group(2) == "ok", "nested: another VT-d unit: %s" % program, match.group(1))
        unit = boot.ask("iommu", r"ECAP ([0-9a-f]+): (addresses of \d+ bits), .*(caching mode \w+),.*\n"
                        r".* domains \(\d+ bits, (\d levels).*\((x2?APIC|not remapped)\)")
        said = unit.groups()[1:] + ("snoop control " + ("yes" if int(unit.group(1), 16) & ECAP_SC else "no"),)
        t.check(said == SAID, "nested: another VT-d unit: it is one", ", ".join(said))


def _no_remapping(t, carrier):
    """Whoever would get a device is refused, and the VM beside starts."""
    config = "[machine]\nconsole = serial\n" + _vf_vm() + rig_nested.vm("calm", "1", "8M", "kernel = hello.elf", "cmdline = poweroff")
    out = rig_nested.disk("no-remapping", config, {"hostile.elf": rig_multiboot.guest("hostile.elf"),
                                                   "hello.elf": rig_multiboot.guest("multiboot_hello.elf")})
    with rig_nested.Boot(carrier, "no-remapping", out, cpus=2, memory=256, iommu=NO_REMAPPING) as boot:
        off = boot.wait_off(SECONDS)
        t.check(boot.seen(r"VT-d \(DMAR table\) +1 unit, no interrupt remapping: no devices can be given to VMs"),
                "nested: no interrupt remapping: the preflight says so")
        t.check(boot.seen(r"\] small: ERROR: .*the IOMMU does not remap interrupts, so a device could forge any: nothing is given to VMs")
                and not boot.seen("^hostile:"), "nested: no interrupt remapping: a VM that wants a VF is refused")
        t.check(off and boot.seen(r"calm: stopped: the guest powered off"),
                "nested: no interrupt remapping: the other VM starts, and ends the machine", "%.0f s" % boot.seconds())


def variants(t, carrier):
    build.ninja(["hostile_guests"], what="building the hostile guests")
    _other(t, carrier)
    _no_remapping(t, carrier)
