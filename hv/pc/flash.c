#include "hv/pc/flash.h"
#include "hv/core.h"
#include "hv/lib/bits.h"
#include "hv/lib/log.h"
#include "hv/lib/string.h"
#include "hv/vm.h"

static uint64_t flash_size(const struct vm *vm)
{
    return core.info->kernels[vm->id].size;
}

static uint64_t flash_base(const struct vm *vm)
{
    return GUEST_FOUR_GIB - flash_size(vm);
}

/* RAM under the ROM area; the VM's first piece of memory begins at its address 0. */
static uint64_t ram_under(const struct vm *vm, uint64_t at)
{
    return vm->extents[0].base + at;
}

/* Does the flash's end cover the segment, and where is that part of it in host memory? */
static bool flash_behind(const struct vm *vm, unsigned segment, uint64_t *hpa_at)
{
    uint64_t base = i440fx_segment_base(segment), from_end = GUEST_ONE_MIB - base;
    if (from_end > FIRMWARE_VISIBLE || from_end > flash_size(vm))
        return false;
    *hpa_at = core.info->kernels[vm->id].hpa + flash_size(vm) - from_end;
    return true;
}

/* What is read from a segment: RAM or flash. False: nothing. */
static bool readable(const struct vm *vm, unsigned segment, uint8_t attributes, uint64_t *hpa_at)
{
    *hpa_at = ram_under(vm, i440fx_segment_base(segment));
    return (attributes & I440FX_READ) || flash_behind(vm, segment, hpa_at);
}

static bool has_copies(const struct vm *vm, uint64_t at, uint64_t size)
{
    const struct flash_copy *copies = vm->platform.flash.copies;
    for (unsigned i = 0; i < FLASH_COPIES; i++)
        if (copies[i].page && copies[i].gpa - at < size)
            return true;
    return false;
}

/* The nested tables for this segment; those of the first 2 MiB are there already, so nothing runs out. */
static enum status show(struct vm *vm, unsigned segment, uint8_t attributes)
{
    gpa_t base = gpa(i440fx_segment_base(segment));
    uint64_t size = i440fx_segment_size(segment), at, now;
    enum gmem_access access = attributes == (I440FX_READ | I440FX_WRITE) ? GMEM_RAM : GMEM_ROM;
    unsigned flags = access == GMEM_RAM ? EPT_READ | EPT_WRITE | EPT_EXEC : EPT_READ | EPT_EXEC;
    hpa_t mapped;
    unsigned old_flags;
    enum ept_memory_type type;

    if (!readable(vm, segment, attributes, &at)) {
        gmem_show(&vm->gmem, base, hpa(0), GMEM_NOTHING);
        return ept_unmap(&vm->ept, base, size);
    }
    gmem_show(&vm->gmem, base, hpa(at), access);
    /* The same pages with other rights never leave the tables: other vCPUs may be running in them. */
    if (!has_copies(vm, base.v, size) &&
        ept_lookup(&vm->ept, base, &mapped, &now, &old_flags, &type) == STATUS_OK && mapped.v == at)
        return ept_protect(&vm->ept, base, size, flags);
    enum status s = ept_unmap(&vm->ept, base, size);
    return s == STATUS_OK ? ept_map(&vm->ept, base, hpa(at), size, flags, EPT_WB) : s;
}

static void flush_nested(struct vm *vm)
{
    for (uint32_t i = 0; i < vm->vcpu_count; i++)
        vcpu_request(vm->vcpus[i], VCPU_REQ_FLUSH);
}

void flash_changed(void *ctx, unsigned segment, uint8_t attributes)
{
    struct vm *vm = ctx;
    enum status s = show(vm, segment, attributes);
    if (s != STATUS_OK) {
        log_vm(LOG_ERROR, vm, "its ROM area at %x cannot be mapped: %s", i440fx_segment_base(segment),
               status_name(s));
        vm_stop(vm, STOP_GUEST_MEMORY);
    }
    flush_nested(vm);
}

/* One page, mapped to something else. False: it would take a large page apart, for which there is no memory;
 * nothing has changed. */
static bool remap_page(struct vm *vm, uint64_t at, uint64_t to, unsigned flags)
{
    return ept_unmap(&vm->ept, gpa(at), PAGE_SIZE) == STATUS_OK &&
           ept_map(&vm->ept, gpa(at), hpa(to), PAGE_SIZE, flags, EPT_WB) == STATUS_OK;
}

void flash_restore(struct vm *vm)
{
    struct flash_copy *c = vm->platform.flash.copies;
    hpa_t now;
    uint64_t size;
    unsigned flags;
    enum ept_memory_type type;
    for (; c < vm->platform.flash.copies + FLASH_COPIES; c++) {
        if (!c->page)
            continue;
        /* Its tables are there already. Where the chipset has changed what is seen there, the copy is hidden:
         * other vCPUs could still reach it then, so it was not freed. Now none runs. */
        if (ept_lookup(&vm->ept, gpa(c->gpa), &now, &size, &flags, &type) == STATUS_OK &&
            now.v == pool_hpa(&core.pool, c->page).v)
            (void)remap_page(vm, c->gpa, c->rom, EPT_READ | EPT_EXEC);
        (void)pool_free(&core.pool, c->page);
        c->page = NULL;
    }
}

static bool copy_page(struct vm *vm, uint64_t at)
{
    struct flash_copy *c = vm->platform.flash.copies;
    hpa_t rom, now;
    uint64_t size;
    unsigned flags;
    enum ept_memory_type type;

    if (gmem_check(&vm->gmem, gpa(at), PAGE_SIZE) != STATUS_OK ||
        gmem_check_write(&vm->gmem, gpa(at), PAGE_SIZE) == STATUS_OK ||
        gmem_translate(&vm->gmem, gpa(at), &rom, &size) != STATUS_OK)
        return false;
    if (ept_lookup(&vm->ept, gpa(at), &now, &size, &flags, &type) == STATUS_OK && (flags & EPT_WRITE))
        return true; /* another vCPU was faster */
    while (c < vm->platform.flash.copies + FLASH_COPIES && c->page)
        c++;
    if (c == vm->platform.flash.copies + FLASH_COPIES)
        return false;
    void *page = pool_alloc(&core.pool);
    if (!page)
        return false;
    (void)gmem_read(&vm->gmem, gpa(at), page, PAGE_SIZE);
    if (!remap_page(vm, at, pool_hpa(&core.pool, page).v, EPT_READ | EPT_WRITE | EPT_EXEC)) {
        (void)pool_free(&core.pool, page);
        return false;
    }
    *c = (struct flash_copy){.gpa = at, .rom = rom.v, .page = page};
    return true;
}

bool flash_take_write(struct vm *vm, gpa_t at)
{
    if (!vm_has_firmware(vm))
        return false;
    vm_lock_devices(vm);
    bool taken = copy_page(vm, align_down(at.v, PAGE_SIZE));
    if (taken)
        flush_nested(vm);
    spin_unlock(&vm->devices);
    return taken;
}

enum status flash_create(struct vm *vm)
{
    const struct boot_file *file = &core.info->kernels[vm->id];
    enum status s = STATUS_OK;
    for (unsigned i = 0; i < I440FX_SEGMENTS && s == STATUS_OK; i++) {
        s = gmem_split(&vm->gmem, gpa(i440fx_segment_base(i)), i440fx_segment_size(i));
        if (s == STATUS_OK)
            s = show(vm, i, 0);
    }
    if (s == STATUS_OK)
        s = gmem_add(&vm->gmem, gpa(flash_base(vm)), hpa(file->hpa), file->size);
    if (s != STATUS_OK)
        return s;
    gmem_show(&vm->gmem, gpa(flash_base(vm)), hpa(file->hpa), GMEM_ROM);
    return ept_map(&vm->ept, gpa(flash_base(vm)), hpa(file->hpa), file->size, EPT_READ | EPT_EXEC, EPT_WB);
}

enum status flash_claim(struct vm *vm)
{
    struct vdev *dev = &vm->platform.flash.dev;
    *dev = (struct vdev){.ops = &flash_ops, .env = &vm->platform.env, .deadline_ns = VDEV_NEVER};
    enum status s = bus_add_mmio(&vm->bus, I440FX_ROM_FIRST, I440FX_ROM_SIZE, dev);
    return s == STATUS_OK ? bus_add_mmio(&vm->bus, flash_base(vm), flash_size(vm), dev) : s;
}

/* A byte that goes to RAM although ROM is read there. */
static bool write_under(struct vm *vm, uint64_t at, uint8_t byte)
{
    if (at >= GUEST_ONE_MIB || at < I440FX_ROM_FIRST ||
        !(vm->platform.chipset.attributes[i440fx_segment_of((uint32_t)at)] & I440FX_WRITE))
        return false;
    uint64_t to = ram_under(vm, at);
    uint8_t *page = vm->gmem.map(vm->gmem.ctx, hpa(to & ~(uint64_t)PAGE_MASK));
    page[to & PAGE_MASK] = byte;
    return true;
}

/* Writes to what can be read only, and everything where neither RAM nor flash is seen. */
static void flash_access(struct vdev *dev, struct io_req *req)
{
    struct vm *vm = dev->env->ctx;
    if (!req->write) {
        req->value = vdev_all_ones(req->size);
        (void)gmem_read(&vm->gmem, gpa(req->addr), &req->value, req->size);
        return;
    }
    bool taken = true;
    for (unsigned i = 0; i < req->size; i++)
        taken = write_under(vm, req->addr + i, (uint8_t)(req->value >> 8 * i)) && taken;
    if (!taken && bus_mmio_first(&vm->bus, req->addr))
        log_vm(LOG_DEBUG, vm, "write of %u bytes to ROM at guest-physical %llx: ignored", req->size,
               (unsigned long long)req->addr);
}

const struct vdev_ops flash_ops = {
    .name = "flash",
    .init = vdev_keep,
    .reset = vdev_keep,
    .access = flash_access,
};
