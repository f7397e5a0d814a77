#include "hv/config/config_internal.h"
#include "hv/lib/string.h"

#define DISK_SECTOR 512u
#define CD_SECTOR   2048u

/* Where an IDE drive is, with the name of the position. */
static const char *const positions[CONFIG_MAX_DISKS] = {"primary master", "primary slave", "secondary master",
                                                        "secondary slave"};

bool config_disk_is_ramdisk(const struct config_value *v, struct config_value *path)
{
    struct span word = config_text_word(v->text);

    *path = *v;
    path->text = config_text_trim(config_text_skip(v->text, word.size));
    return span_equals(word, "ramdisk");
}

/* What a disk's name and position exclude. */
static bool disk_is_free(struct config_parser *p, const struct config_value *v,
                         const struct config_disk *disk)
{
    const struct config_vm *vm = p->vm;

    for (uint32_t i = 0; i < vm->disk_count; i++) {
        const struct config_disk *other = &vm->disks[i];
        if (other->cdrom == disk->cdrom && other->number == disk->number)
            return config_fail(p, CONFIG_DUPLICATE_KEY, v->column, "'%s' was given already in this section",
                               config_text_quote(v->name).text);
        if (other->position == disk->position)
            return config_fail(
                p, CONFIG_DISK_TAKEN, v->column, "%s%u (line %u) is the %s already: use another number",
                other->cdrom ? "cdrom" : "disk", other->number, other->line, positions[disk->position]);
    }
    for (uint32_t i = 0; i < vm->assigned_count && !disk->cdrom; i++)
        if (vm->assigned[i].kind == ASSIGN_NVME_VF && vm->assigned[i].number == disk->number)
            return config_fail(p, CONFIG_DUPLICATE_KEY, v->column, "'%s' was given already in this section",
                               config_text_quote(v->name).text);
    return true;
}

/* CD-ROM drives begin at the secondary master, as on most PCs. */
bool config_disk_parse(struct config_parser *p, const struct config_value *path, bool cdrom)
{
    struct config_vm *vm = p->vm;
    uint8_t number = config_keys_number(path->name);
    struct config_disk disk = {.cdrom = cdrom,
                               .number = number,
                               .position = (uint8_t)((cdrom ? number + 2u : number) % CONFIG_MAX_DISKS),
                               .line = p->line_number};

    if (number >= CONFIG_MAX_DISKS)
        return config_fail(p, CONFIG_BAD_DISK, path->column,
                           "'%s' cannot be a ramdisk: their numbers are 0 to %u",
                           config_text_quote(path->name).text, CONFIG_MAX_DISKS - 1);
    if (!disk_is_free(p, path, &disk))
        return false;
    if (!path->text.size)
        return config_fail(p, CONFIG_EMPTY_VALUE, path->column,
                           "a ramdisk needs a file, as in %s = ramdisk disk.img",
                           config_text_quote(path->name).text);
    struct config_value v = *path;
    v.column = disk.column = config_column(p, path->text.data);
    if (!config_value_path(p, &v, disk.path))
        return false;
    vm->disks[vm->disk_count++] = disk; /* there are as many as positions */
    return true;
}

const char *config_disk_fault(const struct config_disk *disk, uint64_t size)
{
    if (disk->cdrom)
        return size % CD_SECTOR ? "a CD's size must be a multiple of 2048 bytes, pad the file" : NULL;
    return size % DISK_SECTOR ? "a disk's size must be a multiple of 512 bytes, pad the file" : NULL;
}
